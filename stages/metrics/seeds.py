"""Runs of two settings on the same questions → their difference, and how far it may be off by questions and by seeds.

Two sources of chance are independent: which questions were asked, and which seeds were trained with. Each gives an
interval, and the two add up as the square root of the sum of squares of their half widths (MOVER; Zou and Donner 2008).
"""

import math
import statistics
from collections.abc import Hashable, Sequence

from stages.metrics import bootstrap
from stages.metrics.bootstrap import Bounds, Interval

Values = Sequence[float | None]
"""A metric of each question; None where it is not known."""

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t for 1, 2, … degrees of freedom."""


def difference(
    before: Sequence[Values],
    after: Sequence[Values],
    clusters: Sequence[Hashable],
    draws: int,
    seed: int,
    bounds: Bounds | None = None,
) -> Interval:
    """The mean over `after`'s runs minus the mean over `before`'s, paired by question.

    Args:
        before, after: (runs, n) the values of each run; the runs of a side differ in their seed.
        clusters: (n,) the dialogue of each question.
        bounds: see `bootstrap.difference`.
    """
    by_question = bootstrap.difference(_per_question(before), _per_question(after), clusters, draws, seed, bounds)
    return widened(by_question, [_mean(run) for run in before], [_mean(run) for run in after])


def widened(by_question: Interval, before: Sequence[float], after: Sequence[float]) -> Interval:
    """`by_question` with what other seeds would add; unchanged when no side has two runs, since nothing tells then.

    A seed moves both settings by the same amount, as far as one can know from so few: the variance is pooled.

    Args:
        before, after: (runs,) each run's mean.
    """
    return _widened_by(by_question, seed_margin(before, after))


def widened_mean(by_question: Interval, runs: Sequence[float]) -> Interval:
    """The interval of the mean over runs that differ in their seed, with what other seeds would add; see `widened`.

    Args:
        runs: (runs,) each run's mean; of a single one nothing tells what seeds do.
    """
    if len(runs) < 2:
        return by_question
    margin = T_975[min(len(runs) - 1, len(T_975)) - 1] * statistics.stdev(runs) / math.sqrt(len(runs))
    return _widened_by(by_question, margin)


def seed_margin(before: Sequence[float], after: Sequence[float]) -> float:
    """Half the width of the 95 % interval that the seeds alone give the difference of two means (pooled t)."""
    freedom = len(before) + len(after) - 2
    if freedom == 0:
        return 0.0
    squares = sum((value - statistics.fmean(side)) ** 2 for side in (before, after) for value in side)
    deviation = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    return T_975[min(freedom, len(T_975)) - 1] * deviation


def _widened_by(by_question: Interval, margin: float) -> Interval:
    if margin == 0:
        return by_question
    value = by_question.value
    low = value - math.hypot(value - by_question.low, margin)
    high = value + math.hypot(by_question.high - value, margin)
    facing_zero = value - low if value > 0 else high - value
    return Interval(value, low, high, by_question.units, bootstrap.p_normal(value, facing_zero / 1.96))


def _per_question(runs: Sequence[Values]) -> list[float | None]:
    means: list[float | None] = []
    for values in zip(*runs, strict=True):
        known = [value for value in values if value is not None]
        means.append(statistics.fmean(known) if len(known) == len(values) else None)
    return means


def _mean(values: Values) -> float:
    return statistics.fmean(value for value in values if value is not None)
