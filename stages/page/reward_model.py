"""Scores of held-out pairs → how often the reward model is right, how well it knows it, and whether length decides."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.metrics import bootstrap
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


def measure(pairs: dict[str, list[float]], draws: int, seed: int) -> RewardModel:
    """Measure the reward model on held-out pairs: columns `question`, `chosen`, `rejected` and both answers' lengths.

    The pairs of a question share answers, so the intervals draw questions.
    """
    questions = np.asarray(pairs["question"])
    margin = np.subtract(pairs["chosen"], pairs["rejected"])
    longer = np.subtract(pairs["chosen_length"], pairs["rejected_length"])
    # Equal scores order nothing: such a pair counts as wrong, as in training.
    right = (margin > 0).astype(np.float64)
    similar = np.abs(longer) <= SIMILAR * np.maximum(pairs["chosen_length"], pairs["rejected_length"])
    kinds = {
        "all": np.ones_like(similar),
        "longer": ~similar & (longer > 0),
        "similar": similar,
        "shorter": ~similar & (longer < 0),
    }

    def group(name: str, values: NDArray[Any], chosen: NDArray[Any]) -> Group:
        shares, clusters = values[chosen].tolist(), questions[chosen].tolist()
        none = Interval(math.nan, math.nan, math.nan, 0)
        return Group(name, len(shares), bootstrap.mean(shares, clusters, draws, seed, (0, 1)) if shares else none)

    def band(part: NDArray[Any]) -> Bin:
        sizes = np.abs(margin[part])
        confidence = float((1 / (1 + np.exp(-sizes))).mean())
        return Bin(float(sizes.min()), float(sizes.max()), confidence, group("bin", right, part))

    groups = {name: group(name, right, kind) for name, kind in kinds.items()}
    groups["rule"] = group("rule", np.where(longer == 0, 0.5, longer > 0), kinds["all"])
    reads = group("reads", right, kinds["similar"] | kinds["shorter"]).accuracy
    # Equally full bands of |margin|, the smallest margins first.
    bands = np.array_split(np.argsort(np.abs(margin), kind="stable"), BINS)
    bins = [band(part) for part in bands if len(part)]
    return RewardModel(groups, reads, bins, margin.tolist(), correlation(margin, longer))


def correlation(a: Sequence[float] | NDArray[Any], b: Sequence[float] | NDArray[Any]) -> float | None:
    """Pearson's r; None when one side never varies."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / scale if scale > 0 else None
