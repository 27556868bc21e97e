"""Scores of held-out pairs → how often the reward model is right, how well it knows it, and whether length decides."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.metrics.bootstrap import Interval

SIMILAR = 0.1
"""Two answers are of similar length when they differ by at most this share of the longer one."""
BINS = 5


class Group(NamedTuple):
    """The pairs of one kind: how many, and the share (0..1) of them that the reward model orders rightly."""

    name: str
    pairs: int
    accuracy: Interval


class Bin(NamedTuple):
    """The pairs of one band of margins."""

    low: float
    high: float
    confidence: float
    """The mean of σ(margin): the share of correct rankings that the scores predict."""
    group: Group


class RewardModel(NamedTuple):
    groups: dict[str, Group]
    """`all`, `longer` (the chosen answer is the longer one), `similar`, `shorter`, and `rule`: what always picking
    the longer answer would reach, a tie counting half."""
    reads: Interval
    """Accuracy (0..1) where length can't tell: the similar and the shorter ones together."""
    bins: list[Bin]
    margins: list[float]
    """Score of the chosen − score of the rejected answer."""
    length_correlation: float | None
    """Between a pair's difference in score and its difference in length; None when one of them never varies."""


def measure(pairs: dict[str, list[float]]) -> RewardModel:
    """Measure the reward model on held-out pairs: columns `chosen`, `rejected`, `chosen_length`, `rejected_length`."""
    margin = np.subtract(pairs["chosen"], pairs["rejected"])
    longer = np.subtract(pairs["chosen_length"], pairs["rejected_length"])
    # Equal scores order nothing: such a pair counts as wrong, as in training.
    right = margin > 0
    similar = np.abs(longer) <= SIMILAR * np.maximum(pairs["chosen_length"], pairs["rejected_length"])
    kinds = {
        "all": np.ones_like(right),
        "longer": ~similar & (longer > 0),
        "similar": similar,
        "shorter": ~similar & (longer < 0),
    }
    groups = {name: _group(name, right[kind]) for name, kind in kinds.items()}
    groups["rule"] = _group("rule", np.where(longer == 0, 0.5, longer > 0))
    reads = _group("reads", right[kinds["similar"] | kinds["shorter"]]).accuracy
    return RewardModel(groups, reads, _bins(margin, right), margin.tolist(), correlation(margin, longer))


def wilson(right: float, count: int) -> Interval:
    """Share of right answers with Wilson's 95 % interval (1927), which keeps its width when all are right."""
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    z, share = 1.959964, right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), count)


def correlation(a: Sequence[float] | NDArray[Any], b: Sequence[float] | NDArray[Any]) -> float | None:
    """Pearson's r; None when one side never varies."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / scale if scale > 0 else None


def _group(name: str, right: NDArray[Any]) -> Group:
    return Group(name, len(right), wilson(float(right.sum()), len(right)))


def _bins(margin: NDArray[Any], right: NDArray[Any]) -> list[Bin]:
    """Equally full bands of |margin|, the smallest margins first."""
    size = np.abs(margin)
    order = np.argsort(size, kind="stable")
    return [
        Bin(
            float(size[part].min()),
            float(size[part].max()),
            float((1 / (1 + np.exp(-size[part]))).mean()),
            _group("bin", right[part]),
        )
        for part in np.array_split(order, BINS)
        if len(part)
    ]
