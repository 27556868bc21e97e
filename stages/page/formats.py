"""Numbers → the text of a table or a sentence."""

import math

from stages.metrics.bootstrap import Interval

MISSING = "–"


def fixed(value: float | None, digits: int, sign: bool = False) -> str:
    """`value` with that many decimals and a true minus sign; a dash when there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"  # never −0.00
    return text.replace("-", "−")


def span(interval: Interval, digits: int, sign: bool = False) -> str:
    """The ends of an interval: `low … high`, not to be broken between two lines."""
    return f"{fixed(interval.low, digits, sign)}\u00a0…\u00a0{fixed(interval.high, digits, sign)}"


def percent(share: float | None) -> str:
    return fixed(None if share is None else 100 * share, 1) + "\u00a0%"
