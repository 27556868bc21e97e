"""Strings → numbers: how close an answer is to the doctor's, and how repetitive.

ROUGE counts jieba words (rouge_chinese, F-measure); BLEU-4 counts characters with smoothing method 3 of Chen and
Cherry (2014), the way the tutorial's tools did. All of them run 0..100; an empty answer scores 0.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jieba
from rouge_chinese import Rouge

from stages.metrics.bootstrap import Interval

jieba.setLogLevel(logging.WARNING)

ROUGE = ("rouge-1", "rouge-2", "rouge-l")


def rouge(predict: str, label: str) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-measures over jieba words, 0..100."""
    hypothesis, reference = " ".join(jieba.cut(predict)), " ".join(jieba.cut(label))
    if not hypothesis.strip() or not reference.strip():
        return dict.fromkeys(ROUGE, 0.0)
    scores = Rouge().get_scores(hypothesis, reference)[0]
    return {name: 100 * float(scores[name]["f"]) for name in ROUGE}


def bleu_4(predict: Sequence[Any], label: Sequence[Any]) -> float:
    """Sentence BLEU over 1- to 4-grams (Papineni et al. 2002), smoothing method 3: the k-th order without a match
    counts as 1 / (2^k · its n-grams). 0..100; without a common unigram it is 0.
    """
    if not predict or not label:
        return 0.0
    log_precision, halvings = 0.0, 0
    for order in range(1, 5):
        grams, reference = _ngrams(predict, order), _ngrams(label, order)
        matches, total = (grams & reference).total(), max(1, grams.total())
        if matches == 0:
            if order == 1:
                return 0.0
            halvings += 1
            log_precision -= math.log(2**halvings * total) / 4
        else:
            log_precision += math.log(matches / total) / 4
    brevity = min(0.0, 1 - len(label) / len(predict))
    return 100 * math.exp(brevity + log_precision)


def distinct_2(texts: Sequence[str]) -> Interval:
    """Distinct character bigrams over all character bigrams of all texts (Li et al. 2016), 0..100.

    The interval is the jackknife's (Efron and Stein 1981): drawing texts with replacement, as a bootstrap does, would
    repeat whole texts and so pull the ratio down.
    """
    each = [_ngrams(text, 2) for text in texts]
    everything: Counter[tuple[Any, ...]] = sum(each, Counter())
    distinct, total = len(everything), everything.total()
    value = 100 * distinct / max(1, total)
    without = []
    for grams in each:
        only_here = sum(everything[gram] == count for gram, count in grams.items())
        without.append(100 * (distinct - only_here) / max(1, total - grams.total()))
    mean = sum(without) / len(without)
    variance = (len(without) - 1) / len(without) * sum((w - mean) ** 2 for w in without)
    reach = 1.96 * math.sqrt(variance)
    return Interval(value, value - reach, value + reach)


def score(predict: str, label: str) -> dict[str, float]:
    """Every score of one answer against its reference."""
    return rouge(predict, label) | {"bleu-4": bleu_4(predict, label)}


def _ngrams(tokens: Sequence[Any], order: int) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
