"""Numbers and settings → the rows of tables, which the templates write as HTML and as Markdown."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import CONTRASTS, Metric
from stages.page import reference_results
from stages.page.comparison import Comparison, Contrast
from stages.page.formats import MISSING, fixed, percent, span
from stages.page.health import Check
from stages.page.i18n import Sentence
from stages.page.inputs import Run
from stages.page.probes import Probes


class Cell(NamedTuple):
    """A text, with a note after it (its interval) and a mark (`mark.<name>` or `state.<name>` of the dictionary)."""

    text: str | Sentence
    note: str = ""
    mark: str = ""
    style: str = ""
    """`strong`, `code`, or plain."""


class Table(NamedTuple):
    name: str
    """`table.<name>` is its caption."""
    head: list[Sentence]
    rows: list[list[Cell]]


def scores(run: Run, comparison: Comparison) -> Table:
    """One row per metric: the models, the baseline and, on the same test data, what the tutorial published."""
    published = reference_results.comparable(run.documents["data"])
    rows = []
    for metric in comparison.metrics:
        cells = [_value(comparison.values[model][metric.name], metric) for model in comparison.values]
        if published:
            cells.append(Cell(_published(metric) or MISSING))
        rows.append([Cell(Sentence(f"metric.{metric.name}")), *cells])
    head = _head("metric") + [Sentence(f"model.{model}") for model in comparison.values]
    return Table("scores", head + (_head("published") if published else []), rows)


def differences(comparison: Comparison) -> Table:
    """One row per metric, one column per pair of models; a difference larger than chance is marked in words too."""
    head = _head("metric")
    for before, after in comparison.differences:
        pair = {"before": Sentence(f"model.{before}"), "after": Sentence(f"model.{after}")}
        head.append(Sentence("table.contrast", pair))
    rows = [
        [
            Cell(Sentence(f"metric.{metric.name}")),
            *(_difference(comparison, pair, metric) for pair in comparison.differences),
        ]
        for metric in comparison.metrics
    ]
    return Table("differences", head, rows)


def probes(found: Probes, closing: str) -> Table:
    """One row per probe of the reward model: the mean reward, and its change against the unchanged answers."""
    rows = []
    for name, reward in found.rewards.items():
        gain = found.gains[name]
        label = Sentence(f"probe.{name}", {"closing": closing})
        change = Cell(fixed(gain.value, 2, sign=True), span(gain, 2, sign=True), style="strong")
        rows.append([Cell(label), Cell(fixed(reward.value, 2), span(reward, 2), style="strong"), change])
    return Table("probes", _head("probe", "reward", "reward-change"), rows)


def picked_up(found: Probes) -> Table:
    """One row per phrase: the answers of each writer that hold it."""
    rows = [
        [Cell(phrase.text), *(Cell(str(phrase.answers[writer])) for writer in ("ppo", "sft", "doctor"))]
        for phrase in found.picked_up
    ]
    head = [*_head("phrase"), Sentence("model.ppo"), Sentence("model.sft"), Sentence("chart.doctor")]
    return Table("phrases", head, rows)


def contamination(run: Run) -> Table | None:
    """How much of the test split occurs in training, where preprocess counted it."""
    counted = run.documents["data"].get("contamination")
    if not counted:
        return None
    rows = [
        [Cell(Sentence(f"contamination.{kind}")), Cell(percent(counted[kind]))]
        for kind in ("questions", "answers", "pairs")
    ]
    return Table("contamination", _head("part", "in-training"), rows)


def health(checks: list[Check]) -> Table:
    rows = []
    for check in checks:
        state = Cell("", mark="healthy" if check.healthy else "look")
        rows.append(
            [Cell(Sentence(f"health.{check.name}")), Cell(check.found), Cell(Sentence(f"health.{check.name}.expected")),
             state]
        )  # fmt: skip
    return Table("health", _head("check", "found", "expected", "state"), rows)


def settings(document: dict[str, Any], name: str) -> Table:
    """Any nested document as a table of dotted keys."""
    rows = [[Cell(key, style="code"), Cell(value, style="code")] for key, value in flat(document)]
    return Table(name, _head("key", "value"), rows)


def flat(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A nested document as (dotted key, value as text), in its own order."""
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)


def _head(*names: str) -> list[Sentence]:
    return [Sentence(f"table.{name}") for name in names]


def _value(interval: Interval, metric: Metric) -> Cell:
    return Cell(fixed(interval.value, metric.digits), span(interval, metric.digits), style="strong")


def _difference(comparison: Comparison, contrast: Contrast, metric: Metric) -> Cell:
    interval = comparison.differences[contrast][metric.name]
    if (contrast, metric.name) in comparison.significant:
        mark = ("more", "less") if metric.better == 0 else ("better", "worse")
        name = mark[0 if interval.value * (metric.better or 1) > 0 else 1]
    else:
        name = "chance"
    return Cell(
        fixed(interval.value, metric.digits, sign=True), span(interval, metric.digits, sign=True), name, "strong"
    )


def _published(metric: Metric) -> Sentence | None:
    """The tutorial's two numbers of a metric; it published some from base to SFT, others from SFT to PPO."""
    for before, after in CONTRASTS:
        ours, theirs = (reference_results.METRICS[model].get(metric.name) for model in (before, after))
        if ours is not None and theirs is not None:
            shown = ".2f" if metric.digits == 2 else "g"
            return Sentence(f"table.{before}-{after}", {"before": f"{ours:{shown}}", "after": f"{theirs:{shown}}"})
    return None
