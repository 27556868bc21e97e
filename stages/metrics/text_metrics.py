"""Strings → numbers: how close an answer is to the doctor's, and how much it repeats itself.

ROUGE counts jieba words (rouge_chinese, F-measure); BLEU-4 counts characters with smoothing method 3 of Chen and
Cherry (2014), the way the tutorial's tools later did. Both run 0..100; an empty answer scores 0.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stages.metrics.answer import Answer


def rouge_1(answer: Answer) -> float:
    return rouge(answer.text, answer.reference)["rouge-1"]


def rouge_2(answer: Answer) -> float:
    return rouge(answer.text, answer.reference)["rouge-2"]


def rouge_l(answer: Answer) -> float:
    return rouge(answer.text, answer.reference)["rouge-l"]


def bleu(answer: Answer) -> float:
    return bleu_4(answer.text, answer.reference)


@functools.lru_cache(maxsize=16)  # three metrics read one computation
def rouge(predict: str, label: str) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-measures over jieba words, 0..100."""
    from rouge_chinese import Rouge

    words = segmenter()
    hypothesis, reference = " ".join(words.cut(predict)), " ".join(words.cut(label))
    if not hypothesis.strip() or not reference.strip():
        return dict.fromkeys(("rouge-1", "rouge-2", "rouge-l"), 0.0)
    scores = Rouge().get_scores(hypothesis, reference)[0]
    return {name: 100 * float(found["f"]) for name, found in scores.items()}


@functools.cache
def segmenter() -> Any:
    """jieba with its own dictionary, read anew: it would take /tmp/jieba.cache for it, whoever wrote that."""
    import jieba

    words = jieba.Tokenizer()
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True
    return words


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


def repetition(answer: Answer) -> float:
    """Share (0..1) of the answer's 4-grams of characters that occurred in it before: 0 for none, near 1 for a loop."""
    grams = [answer.text[i : i + 4] for i in range(len(answer.text) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(tokens: Sequence[Any], order: int) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
