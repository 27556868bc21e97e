"""Numbers of each sample → how far their mean may be off by chance: percentile bootstrap (Efron 1979), fixed seed.

Samples of one dialogue share its history, so whole dialogues are drawn with replacement, not samples (the cluster
bootstrap; Davison and Hinkley 1997, §3.8). Two measures of the same test set see the same draws for the same seed.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
MIN_UNITS = 20
"""An interval from fewer dialogues proves nothing: its ends are themselves too uncertain."""
BLOCK = 1 << 20  # indices held at once: a few megabytes, whatever the size of the test set

Bounds = tuple[float, float]


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    units: int
    """Independent dialogues (or questions) behind it."""
    p: float = 1.0
    """Two-sided, of the value being zero."""

    @property
    def proves(self) -> bool:
        """Whether the ends may be relied on: a width above zero, and enough independent units."""
        return self.units >= MIN_UNITS and self.low < self.high

    @property
    def beyond_chance(self) -> bool:
        """True when zero lies outside the interval. Meant for differences."""
        return self.proves and (self.low > 0 or self.high < 0)

    def scaled(self, factor: float) -> "Interval":
        """With a positive factor."""
        return self._replace(value=factor * self.value, low=factor * self.low, high=factor * self.high)


def mean(
    values: Sequence[float | None],
    clusters: Sequence[Hashable],
    draws: int,
    seed: int,
    bounds: Bounds | None = None,
) -> Interval:
    """The mean of `values` (n,) with its interval; a None is left out.

    Args:
        clusters: (n,) the dialogue of each sample.
        bounds: the least and the greatest possible value. When all dialogues agree, the draws show no spread, though
            a share of up to 1 − 0.025^(1/n) of all dialogues may differ unseen (the "rule of three" at 97.5 %). With
            bounds the interval reaches as far as those could pull the mean; without, its width stays zero.

    Raises:
        ValueError: no values.
    """
    known = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    if not known:
        raise ValueError("no values to draw from")
    numbers = np.asarray([value for value, _ in known], dtype=np.float64)
    places = np.array(numbered([cluster for _, cluster in known]))
    sums, counts = np.bincount(places, numbers), np.bincount(places).astype(np.float64)
    units, value = len(sums), float(numbers.mean())
    if np.ptp(numbers) == 0:
        return _unanimous(value, units, bounds)
    means = np.concatenate([sums[d].sum(axis=1) / counts[d].sum(axis=1) for d in indices(units, draws, seed)])
    return interval(value, means, units)


def difference(
    before: Sequence[float | None],
    after: Sequence[float | None],
    clusters: Sequence[Hashable],
    draws: int,
    seed: int,
    bounds: Bounds | None = None,
) -> Interval:
    """The mean of `after` − `before`, both (n,) over the same samples in the same order.

    Pairing takes the samples' own difficulty out: it moves both models alike.

    Args:
        bounds: of a difference, such as (−100, 100); see `mean`.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired difference needs equal lengths, not {len(before)} and {len(after)}")
    changes = [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
    return mean(changes, clusters, draws, seed, bounds)


def interval(value: float, drawn: NDArray[Any], units: int) -> Interval:
    """From the values of the draws (draws,): the percentiles, and p from their spread, taken as normal."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), units, p_normal(value, float(np.std(drawn))))


def p_normal(value: float, deviation: float) -> float:
    """Two-sided p of a value whose standard error is `deviation`."""
    if deviation == 0:
        return 1.0
    return math.erfc(abs(value) / deviation / math.sqrt(2))


def indices(count: int, draws: int, seed: int) -> Iterator[NDArray[Any]]:
    """Blocks (b, count) of drawn indices, `draws` rows in all."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // count)
    for start in range(0, draws, rows):
        yield random.integers(count, size=(min(rows, draws - start), count))


def _unanimous(value: float, units: int, bounds: Bounds | None) -> Interval:
    """All agree. p is the sign test's: that all of the dialogues changed, and in one direction."""
    p = 1.0 if value == 0 else min(1.0, 2 * 0.5**units)
    if bounds is None:
        return Interval(value, value, value, units, p)
    unseen = 1 - ((1 - LEVEL) / 2) ** (1 / units)
    least, greatest = bounds
    return Interval(value, value - unseen * (value - least), value + unseen * (greatest - value), units, p)


def numbered(clusters: Sequence[Hashable]) -> list[int]:
    """The clusters as numbers from 0, in the order in which they first occur."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
