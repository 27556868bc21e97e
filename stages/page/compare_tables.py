"""The comparison of runs → the rows of its tables, which page and Markdown share."""

import statistics

from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import Metric
from stages.page.compare_settings import Comparison, Setting
from stages.page.formats import MISSING, fixed, span
from stages.page.i18n import Sentence
from stages.page.tables import Cell, Table


def changed(comparison: Comparison) -> Table:
    """One row per parameter, piece of code, data or environment that is not the same in all settings."""
    rows = []
    for change in comparison.changes:
        label = Cell(change.key, style="code") if change.kind == "parameter" else _labelled(change.kind, change.key)
        rows.append([label, *(Cell(value, style="code") if value else Cell(MISSING) for value in change.values)])
    return Table("compare-changed", [Sentence("compare.what"), *_names(comparison)], rows)


def metrics(comparison: Comparison) -> Table:
    """One row per metric: the first setting's value, then each other setting's with its difference from the first."""
    head: list[Sentence] = [Sentence("table.metric"), _name(comparison.settings[0])]
    for setting in comparison.settings[1:]:
        head += [_name(setting), Sentence("compare.difference", {"first": comparison.settings[0].name})]
    rows = []
    for metric in comparison.metrics:
        first, *others = (_value(each, metric) for each in comparison.values[metric.name])
        row = [Cell(Sentence(f"metric.{metric.name}")), first]
        for at, value in enumerate(others):
            row += [value, _difference(comparison.differences[at][metric.name], comparison.marks[at], metric)]
        rows.append(row)
    return Table("compare-metrics", head, rows)


def each_run(comparison: Comparison) -> Table | None:
    """One row per run with its seed and its values; None where no setting has several runs."""
    if all(len(setting.runs) == 1 for setting in comparison.settings):
        return None
    rows = []
    for at, setting in enumerate(comparison.settings):
        for number, run in enumerate(setting.runs):
            values = [fixed(comparison.values[m.name][at][number], m.digits) for m in comparison.metrics]
            rows.append([Cell(run.name), Cell(run.seed, style="code"), *map(Cell, values)])
    head = [Sentence("compare.run"), Sentence("compare.seed")]
    return Table("compare-runs", [*head, *(Sentence(f"metric.{m.name}") for m in comparison.metrics)], rows)


def _labelled(kind: str, key: str) -> Cell:
    return Cell(Sentence(f"compare.{kind}", {"key": key}))


def _names(comparison: Comparison) -> list[Sentence]:
    return [_name(setting) for setting in comparison.settings]


def _name(setting: Setting) -> Sentence:
    return Sentence("compare.name", {"name": setting.name})


def _value(runs: list[float], metric: Metric) -> Cell:
    mean = fixed(statistics.fmean(runs), metric.digits)
    if len(runs) == 1:
        return Cell(mean, style="strong")
    return Cell(mean, f"± {fixed(statistics.stdev(runs), metric.digits)}, n = {len(runs)}", style="strong")


def _difference(interval: Interval | None, marks: dict[str, str], metric: Metric) -> Cell:
    if interval is None:
        return Cell(MISSING, mark=marks[metric.name])
    return Cell(
        fixed(interval.value, metric.digits, sign=True), span(interval, metric.digits, sign=True), marks[metric.name]
    )
