"""Numbers of each sample → how far their mean may be off by chance: percentile bootstrap (Efron 1979), fixed seed.

Every function draws the samples with replacement, so two measures of the same test set (two models, two metrics)
see the same draws for the same seed.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
BLOCK = 1 << 20  # indices held at once: a few megabytes, whatever the size of the test set


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """True when zero lies outside the interval. Meant for differences."""
        return self.low > 0 or self.high < 0


def mean(values: Sequence[float] | NDArray[Any], draws: int, seed: int) -> Interval:
    """The mean of `values` (n,) with its interval."""
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        raise ValueError("no values to draw from")
    means = np.concatenate([numbers[block].mean(axis=1) for block in _indices(len(numbers), draws, seed)])
    return _interval(numbers.mean(), means)


def difference(before: Sequence[float], after: Sequence[float], draws: int, seed: int) -> Interval:
    """The mean of `after` − `before`, both (n,) over the same samples in the same order.

    Pairing takes the samples' own difficulty out: it moves both models alike.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired difference needs equal lengths, not {len(before)} and {len(after)}")
    return mean(np.subtract(after, before, dtype=np.float64), draws, seed)


def _indices(count: int, draws: int, seed: int) -> Iterator[NDArray[Any]]:
    """Blocks (b, count) of drawn indices, `draws` rows in all."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // count)
    for start in range(0, draws, rows):
        yield random.integers(count, size=(min(rows, draws - start), count))


def _interval(value: Any, drawn: NDArray[Any]) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
