"""ROUGE, BLEU-4 and distinct-2 against numbers worked out by hand."""

import math

import pytest

from stages.metrics import text_metrics


def test_rouge_over_words():
    # The words 建议 多 喝水 休息 against 建议 多 休息: 3 in common, in order; one bigram of 3 and 2.
    found = text_metrics.rouge("建议 多 喝水 休息", "建议 多 休息")
    assert found == pytest.approx({"rouge-1": 600 / 7, "rouge-2": 200 / 5, "rouge-l": 600 / 7}, abs=1e-3)
    turned = text_metrics.rouge("休息 建议 喝水 多", "建议 多 休息")
    assert turned == pytest.approx({"rouge-1": 600 / 7, "rouge-2": 0, "rouge-l": 400 / 7}, abs=1e-3)


def test_bleu_without_smoothing():
    # abcde | abcdf: 4/5, 3/4, 2/3, 1/2; as long as the reference
    assert text_metrics.bleu_4("abcde", "abcdf") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # abcd | abcdef: all match, but four characters for six
    assert text_metrics.bleu_4("abcd", "abcdef") == pytest.approx(100 * math.exp(1 - 6 / 4))
    # aaaa | ab: of four a one counts; no bigram matches: 1/2 of 1/3, then 1/4 of 1/2, then 1/8 of 1
    assert text_metrics.bleu_4("aaaa", "ab") == pytest.approx(100 * (1 / 4 * 1 / 6 * 1 / 8 * 1 / 8) ** 0.25)


def test_bleu_is_nltks_with_smoothing_method_3():
    # nltk 3: 100 * sentence_bleu([list(label)], list(predict), smoothing_function=SmoothingFunction().method3)
    assert text_metrics.bleu_4("多喝水好好休息", "建议多喝水休息") == pytest.approx(30.739407647563223)


def test_an_empty_answer_scores_nothing():
    zero = {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0, "bleu-4": 0.0}
    for predict, label in (("", "多喝水"), ("多喝水", ""), (" \n", "多喝水"), ("", "")):
        assert text_metrics.score(predict, label) == zero
    assert text_metrics.score("啊", "多喝水") == zero
    same = text_metrics.score("建议您多喝水。", "建议您多喝水。")
    assert list(same.values()) == pytest.approx([100] * 4, abs=1e-3)


def test_distinct_2():
    # ab, bc | ab, ba | (nothing): 3 of 4 are distinct
    found = text_metrics.distinct_2(["abc", "aba", "x"])
    assert found.value == 75.0
    # left out: the first 2/2, the second 2/2, the third 3/4
    without = [100.0, 100.0, 75.0]
    mean = sum(without) / 3
    reach = 1.96 * math.sqrt(2 / 3 * sum((w - mean) ** 2 for w in without))
    assert (found.low, found.high) == pytest.approx((75 - reach, 75 + reach))
    assert text_metrics.distinct_2(["", ""]).value == 0.0
