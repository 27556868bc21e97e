"""Distinct-2 (Li et al. 2016), comparable between models that write answers of different lengths.

A longer text repeats more of its bigrams whatever its style, so each model's share is that of an equally large draw:
the expected number of different bigrams among n drawn without replacement (rarefaction; Hurlbert 1971).
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.metrics.bootstrap import Interval, p_normal

Grams = Counter[str]


class Distinct2:
    """Values and paired differences of several models over the same samples, each 0..100.

    The intervals are the jackknife's over dialogues (Efron and Stein 1981): drawing dialogues with replacement, as a
    bootstrap does, would repeat whole texts and so pull the share down.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]], clusters: Sequence[Hashable]) -> None:
        """
        Args:
            texts: model → its answers (n,).
            clusters: (n,) the dialogue of each sample.
        """
        dialogues = {model: _by_cluster(each, clusters) for model, each in texts.items()}
        everything = {model: sum(grams, Counter()) for model, grams in dialogues.items()}
        self.units = len(set(clusters))
        self.size = max(0, min(
            everything[model].total() - max((g.total() for g in grams), default=0)
            for model, grams in dialogues.items()
        ))  # fmt: skip
        """Bigrams in a draw: the fewest that any model has left without any one dialogue."""
        self._full = {model: _distinct(everything[model], self.size) for model in texts}
        self._without = {
            model: np.array([_distinct(everything[model] - grams, self.size) for grams in dialogues[model]])
            for model in texts
        }

    def value(self, model: str) -> Interval:
        return self._jackknife(self._full[model], self._without[model])

    def difference(self, before: str, after: str) -> Interval:
        value = self._full[after] - self._full[before]
        return self._jackknife(value, self._without[after] - self._without[before])

    def _jackknife(self, value: float, without: NDArray[Any]) -> Interval:
        variance = (self.units - 1) / self.units * float(((without - without.mean()) ** 2).sum())
        deviation = math.sqrt(variance)
        return Interval(
            value, value - 1.96 * deviation, value + 1.96 * deviation, self.units, p_normal(value, deviation)
        )


def _by_cluster(texts: Sequence[str], clusters: Sequence[Hashable]) -> list[Grams]:
    found: dict[Hashable, Grams] = {}
    for text, cluster in zip(texts, clusters, strict=True):
        found.setdefault(cluster, Counter()).update(text[i : i + 2] for i in range(len(text) - 1))
    return list(found.values())


def _distinct(grams: Grams, size: int) -> float:
    """100 / size · Σ over bigrams of 1 − C(T − c, size) / C(T, size), for a bigram seen c times among T."""
    total = grams.total()
    if not 0 < size <= total:
        return 0.0

    def log_choose(n: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(size + 1) - math.lgamma(n - size + 1)

    expected = 0.0
    for seen, grams_seen_so_often in sorted(Counter(grams.values()).items()):
        missed = math.exp(log_choose(total - seen) - log_choose(total)) if total - seen >= size else 0.0
        expected += grams_seen_so_often * (1 - missed)
    return round(100 * expected / size, 9)  # smaller digits are the rounding of log_choose, not spread
