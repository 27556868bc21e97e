"""Numbers and settings → HTML tables, readable without a script."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from stages.page import reference_results
from stages.page.comparison import CONTRASTS, METRICS, Comparison, Metric
from stages.page.formats import MISSING, fixed, span
from stages.page.health import Check
from stages.page.i18n import Sentence, both
from stages.page.inputs import MODELS
from stages.page.markup import Markup, element, join


def scores(comparison: Comparison) -> Markup:
    """One row per metric: the three models with their intervals, and what the tutorial published."""
    head = [both("table.metric"), *(both(f"model.{model}") for model in MODELS), both("table.published")]
    rows = []
    for metric in METRICS:
        cells = []
        for model in MODELS:
            interval = comparison.values[model][metric.name]
            value = element("strong", fixed(interval.value, metric.digits))
            cells.append(join([value, " ", element("small", span(interval, metric.digits))]))
        rows.append([both(f"metric.{metric.name}"), *cells, both(shown) if (shown := known(metric)) else MISSING])
    return table("table.scores", head, rows)


def known(metric: Metric) -> Sentence | None:
    """The tutorial's two numbers of a metric; it published some from base to SFT, others from SFT to PPO."""
    for before, after in CONTRASTS:
        ours, theirs = (
            reference_results.METRICS[before].get(metric.name),
            reference_results.METRICS[after].get(metric.name),
        )
        if ours is not None and theirs is not None:
            shown = ".2f" if metric.digits == 2 else "g"
            return Sentence(f"table.{before}-{after}", {"before": f"{ours:{shown}}", "after": f"{theirs:{shown}}"})
    return None


def differences(comparison: Comparison) -> Markup:
    """One row per metric, one column per pair of models; a difference larger than chance is marked in words too."""
    head = [both("table.metric")]
    head += [join([both(f"model.{before}"), " → ", both(f"model.{after}")]) for before, after in CONTRASTS]
    rows = []
    for metric in METRICS:
        if metric.score:
            rows.append([both(f"metric.{metric.name}"), *(_difference(comparison, c, metric) for c in CONTRASTS)])
    return table("table.differences", head, rows)


def _difference(comparison: Comparison, contrast: tuple[str, str], metric: Metric) -> Markup:
    interval = comparison.differences[contrast][metric.name]
    if interval.low == interval.high == 0:
        mark = "none"
    elif not interval.beyond_chance:
        mark = "chance"
    elif metric.better == 0:
        mark = "more" if interval.value > 0 else "less"
    else:
        mark = "better" if interval.value * metric.better > 0 else "worse"
    return join(
        [
            element("strong", fixed(interval.value, metric.digits, sign=True)),
            " ",
            element("small", span(interval, metric.digits, sign=True)),
            " ",
            element("span", both(f"mark.{mark}"), class_=f"mark {mark}"),
        ]
    )


def health(checks: list[Check]) -> Markup:
    head = [both(f"table.{name}") for name in ("check", "found", "expected", "state")]
    rows = []
    for check in checks:
        state = "good" if check.healthy else "mixed"
        label = element("span", both(f"state.{'healthy' if check.healthy else 'look'}"), class_=f"mark {state}")
        rows.append([both(f"health.{check.name}"), both(check.found), both(f"health.{check.name}.expected"), label])
    return table("table.health", head, rows)


def changed(params: dict[str, Any], defaults: dict[str, Any] | None) -> Markup:
    """The parameters that this run set to something else than the default."""
    if defaults is None:
        return element("p", both("run.no-defaults"))
    ours, theirs = dict(flat(params)), dict(flat(defaults))
    rows: list[list[str]] = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if ours.get(key) != theirs.get(key):
            cells = [element("code", values[key]) if key in values else MISSING for values in (theirs, ours)]
            rows.append([element("code", key), *cells])
    if not rows:
        return element("p", both("run.all-default"))
    return table("run.changed", [both("table.parameter"), both("table.default"), both("table.here")], rows)


def settings(label: str, document: dict[str, Any]) -> Markup:
    """Any nested document as a table of dotted keys."""
    rows: list[list[str]] = [[element("code", key), element("code", value)] for key, value in flat(document)]
    return table(label, [both("table.key"), both("table.value")], rows)


def flat(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A nested document as (dotted key, value as text), in its own order."""
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)


def table(label: str, head: list[Markup], rows: Sequence[Sequence[str]]) -> Markup:
    """A table; `label` names it aloud. On a narrow screen each row is a card, its cells with their column's title."""
    titles = element("tr", *(element("th", title, scope="col") for title in head))
    # Seen in cards only, and never spoken: who listens gets the heading itself. A key and its value need no title.
    inside = [element("span", title, class_="column", aria_hidden="true") for title in head] if len(head) > 2 else []
    body = []
    for row in rows:
        cells = [
            element("td", inside[at] if inside else None, cell, class_="missing" if cell == MISSING else None)
            for at, cell in enumerate(row)
            if at
        ]
        body.append(element("tr", element("th", row[0], scope="row"), *cells))
    name = f"name-{label.replace('.', '-')}"
    return element(
        "div",
        element("table", element("caption", both(label), id=name), element("thead", titles), element("tbody", *body)),
        class_=f"scroll {label.partition('.')[2]}",
        role="region",
        aria_labelledby=name,
        tabindex="0",
    )
