"""The metrics of single answers against numbers worked out by hand, and what a declaration brings with it."""

import marshal
import math
import tempfile

import pytest

from stages.metrics import definitions, facts, text_metrics
from stages.metrics.answer import Answer


def answer(text, reference="多喝水", ended=True, known=None):
    return Answer(text, reference, len(text), ended, known)


def test_rouge_over_words():
    # The words 建议 多 喝水 休息 against 建议 多 休息: 3 in common, in order; one bigram of 3 and 2.
    found = text_metrics.rouge("建议 多 喝水 休息", "建议 多 休息")
    assert found == pytest.approx({"rouge-1": 600 / 7, "rouge-2": 200 / 5, "rouge-l": 600 / 7}, abs=1e-3)
    turned = text_metrics.rouge("休息 建议 喝水 多", "建议 多 休息")
    assert turned == pytest.approx({"rouge-1": 600 / 7, "rouge-2": 0, "rouge-l": 400 / 7}, abs=1e-3)


def test_a_planted_cache_of_jieba_plays_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "jieba.cache").write_bytes(marshal.dumps(({"我发烧三": 10**6}, 10**6)))
    text_metrics.segmenter.cache_clear()
    assert text_metrics.segmenter().lcut("我发烧三天了") == ["我", "发烧", "三天", "了"]
    assert [path.name for path in tmp_path.iterdir()] == ["jieba.cache"]


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


def test_an_empty_answer_scores_nothing_and_a_perfect_one_everything():
    names = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
    for text, reference in (("", "多喝水"), ("多喝水", ""), (" \n", "多喝水"), ("", ""), ("啊", "多喝水")):
        measured = definitions.measure(answer(text, reference))
        assert [measured[name] for name in names] == [0, 0, 0, 0]
    measured = definitions.measure(answer("建议您多喝水。", "建议您多喝水。"))
    assert [measured[name] for name in names] == pytest.approx([100] * 4, abs=1e-3)


def test_repetition_is_the_share_of_four_grams_that_occurred_before():
    assert text_metrics.repetition(answer("甲乙丙丁甲乙丙丁")) == pytest.approx(1 / 5)
    assert text_metrics.repetition(answer("好好好好好")) == pytest.approx(1 / 2)
    assert text_metrics.repetition(answer("好")) == text_metrics.repetition(answer("")) == 0


def test_facts():
    known = {
        "must": [["drug", "布洛芬", "芬必得"], ["advice", "多喝水"], ["illness", "感冒"]],
        "must_not": ["阿奇霉素", "一次三片"],
    }
    assert facts.named(answer("吃芬必得，感冒会好。", known=known)) == 1 / 2, "an illness is not asked for"
    assert facts.named(answer("多喝水，吃布洛芬。", known=known)) == 1
    assert facts.contradicted(answer("多喝水，吃布洛芬。", known=known)) == 0
    assert facts.contradicted(answer("布洛芬一次三片。", known=known)) == 1
    nothing_asked = {"must": [["illness", "感冒"]], "must_not": ["阿奇霉素"]}
    assert facts.named(answer("感冒", known=nothing_asked)) is None
    assert facts.contradicted(answer("感冒", known=nothing_asked)) == 0
    assert facts.named(answer("感冒")) is None and facts.contradicted(answer("感冒")) is None


def test_a_number_that_is_not_known_is_left_out():
    assert {"facts_named", "facts_contradicted"}.isdisjoint(definitions.measure(answer("好")))
    assert definitions.measure(answer("好好", ended=False)) == {
        "rouge-1": 0, "rouge-2": 0, "rouge-l": 0, "bleu-4": 0, "response_length": 2, "response_tokens": 2, "eos": False,
        "repetition": 0,
    }  # fmt: skip


def test_declarations_have_names_of_their_own():
    names = [metric.name for metric in definitions.METRICS]
    assert len(set(names)) == len(names)
    for metric in definitions.METRICS:
        assert metric.en and metric.zh and metric.better in (-1, 0, 1)
        assert metric.margin is None or metric.better, f"{metric.name}: without a better direction nothing is worse"
