"""The training curves of several runs → one drawing per curve, the runs over each other."""

from typing import NamedTuple

from markupsafe import Markup

from stages.page import line_chart
from stages.page.compare_inputs import Run
from stages.page.compare_settings import Comparison
from stages.page.line_chart import Line
from stages.page.smoothing import smooth

SHOWN = (
    ("base", "loss"), ("base_eval", "eval_loss"), ("sft", "loss"), ("sft_eval", "eval_loss"),
    ("rm", "loss"), ("rm_eval", "eval_accuracy"),
    ("ppo", "score"), ("ppo", "kl"), ("ppo", "response_length"), ("ppo", "entropy"), ("ppo", "eos_rate"),
)  # fmt: skip
SMOOTHED = ("loss", "score", "kl", "response_length", "entropy", "eos_rate")
"""Noisy from step to step: drawn faintly, with their trend over them."""


class Drawing(NamedTuple):
    key: str
    """`compare.curve.<key>` is its title."""
    svg: Markup


def draw(comparison: Comparison) -> tuple[list[Drawing], list[str]]:
    """The curves that differ between runs, and the keys of those that are the same in all."""
    runs = [(at, run) for at, setting in enumerate(comparison.settings) for run in setting.runs]
    drawings, same = [], []
    for curve, column in SHOWN:
        having = [(at, run) for at, run in runs if run.curves.get(curve, {}).get(column)]
        if not having:
            continue
        key = f"{curve}.{column}"
        if len(runs) > 1 and len({repr(run.curves.get(curve, {}).get(column)) for _, run in runs}) == 1:
            same.append(key)
        else:
            lines = [line for at, run in having for line in _lines(at, run, curve, column)]
            # trends lie over all raw values, not under the next run's
            drawings.append(Drawing(key, line_chart.draw(sorted(lines, key=lambda line: not line.faint))))
    return drawings, same


def _lines(colour: int, run: Run, curve: str, column: str) -> list[Line]:
    x, y = run.curves[curve]["step"], run.curves[curve][column]
    if column not in SMOOTHED:
        return [Line(run.name, colour, line_chart.segments(x, y))]
    raw = Line(run.name, colour, line_chart.segments(x, y), faint=True)
    return [raw, Line(run.name, colour, line_chart.segments(x, smooth(y)))]
