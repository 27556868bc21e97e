"""Numbers → a short Markdown text for a pull request."""

from typing import Any

from stages.page import tables
from stages.page.comparison import CONTRASTS, METRICS, Comparison, Metric
from stages.page.formats import MISSING, fixed, span
from stages.page.i18n import Sentence, say
from stages.page.inputs import MODELS
from stages.page.verdict import Answer


def markdown(comparison: Comparison, answers: list[Answer], language: str) -> str:
    """The verdict, the scores, and the differences."""

    def word(key: str) -> str:
        return say(Sentence(key), language)

    lines = [f"# {word('page.title')}", ""]
    for answer in answers:
        sentences = " ".join(say(sentence, language) for sentence in answer.because)
        lines.append(f"- **{word(f'verdict.{answer.name}')}** {say(answer.short, language)} {sentences}")
    lines += ["", f"## {word('page.scores')}", ""]
    lines += _table([word("table.metric"), *(word(f"model.{model}") for model in MODELS), word("table.published")])
    for metric in METRICS:
        cells = [_value(comparison.values[model][metric.name], metric) for model in MODELS]
        known = tables.known(metric)
        lines.append(_row([word(f"metric.{metric.name}"), *cells, say(known, language) if known else MISSING]))
    lines += ["", word("page.interval"), "", f"## {word('page.differences')}", ""]
    contrasts = [f"{word(f'model.{before}')} → {word(f'model.{after}')}" for before, after in CONTRASTS]
    lines += _table([word("table.metric"), *contrasts])
    for metric in METRICS:
        if metric.score:
            found = [comparison.differences[contrast][metric.name] for contrast in CONTRASTS]
            cells = [f"**{_value(d, metric, True)}**" if d.beyond_chance else _value(d, metric, True) for d in found]
            lines.append(_row([word(f"metric.{metric.name}"), *cells]))
    lines += ["", word("page.bold"), ""]
    return "\n".join(lines)


def _value(interval: Any, metric: Metric, sign: bool = False) -> str:
    return f"{fixed(interval.value, metric.digits, sign)} ({span(interval, metric.digits, sign)})"


def _table(head: list[str]) -> list[str]:
    return [_row(head), "|" + " --- |" + " ---: |" * (len(head) - 1)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
