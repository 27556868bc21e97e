"""Curves of several runs → one drawing as SVG, small enough for a page without a charting library.

Colours are the page's CSS variables, so the drawing follows light and dark. It says nothing to who cannot see it; the
page puts its numbers in words beside it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 28
COLOURS = ("sft", "ppo", "doctor", "rm", "eval", "mixed", "base", "bad")

Points = list[tuple[float, float]]


class Line(NamedTuple):
    name: str
    """What the tooltip shows."""
    colour: int
    """Number of its setting; runs of one setting look alike."""
    segments: list[Points]
    """(x, y); a gap in the curve begins a new segment."""
    faint: bool = False
    """Raw values behind their trend."""


def colour(number: int) -> str:
    return f"var(--{COLOURS[number % len(COLOURS)]})"


def segments(x: Sequence[float | None], y: Sequence[float | None]) -> list[Points]:
    found: list[Points] = [[]]
    for at, value in zip(x, y, strict=True):
        if at is None or value is None:
            found.append([])
        else:
            found[-1].append((at, value))
    return [points for points in found if points]


def draw(lines: Sequence[Line]) -> Markup:
    """The lines over common axes. Lines without a point are left out; without any line the drawing is empty."""
    points = [point for line in lines for segment in line.segments for point in segment]
    if not points:
        return Markup("")
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), 5)
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y_ticks[0], min(y for _, y in points)), max(y_ticks[-1], max(y for _, y in points))

    def place(x: float, y: float) -> tuple[str, str]:
        right = LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM)
        return f"{right:.1f}", f"{down:.1f}"

    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" aria-hidden="true">').format(WIDTH, HEIGHT)]
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" class="y">{}</text>').format(
                LEFT, y, WIDTH - RIGHT, LEFT - 6, y, shown(tick)
            )
        )
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = place(tick, y_low)
            parts.append(Markup('<text x="{}" y="{}" class="x">{}</text>').format(x, HEIGHT - 8, shown(tick)))
    for line in lines:
        for segment in line.segments:
            parts.append(_line(line, [place(*point) for point in segment]))
    return Markup("").join([*parts, Markup("</svg>")])


def _line(line: Line, places: list[tuple[str, str]]) -> Markup:
    look = "line faint" if line.faint else "line"
    title = Markup("<title>{}</title>").format(line.name)
    if len(places) == 1:
        return Markup('<circle class="{}" cx="{}" cy="{}" r="3" fill="{}">{}</circle>').format(
            look, *places[0], colour(line.colour), title
        )
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    return Markup('<path class="{}" d="{}" stroke="{}">{}</path>').format(look, path, colour(line.colour), title)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, steps of 1, 2 or 5 times a power of ten."""
    if low == high:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def shown(tick: float) -> str:
    return f"{tick:.6g}".replace("-", "−")
