"""A jagged curve → its trend, the way the tutorial drew it."""

import math
from collections.abc import Sequence


def smooth(values: Sequence[float | None]) -> list[float | None]:
    """Exponential moving average whose weight, 1.8·(σ(0.05·n) − 0.5), grows with the number n of values.

    A gap (None) stays a gap and leaves the average as it was.
    """
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(values))) - 0.5)
    smoothed: list[float | None] = []
    last = None
    for value in values:
        if value is not None:
            last = value if last is None else weight * last + (1 - weight) * value
        smoothed.append(None if value is None else last)
    return smoothed


def ends(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The means of the first and of the last quarter (at least one value each); None for a curve without values."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    quarter = max(1, len(known) // 4)
    return sum(known[:quarter]) / quarter, sum(known[-quarter:]) / quarter
