"""The comparison of runs → one HTML file in the report's look: what changed, curves, and all answers side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.page import compare_curves, compare_tables, embedding, line_chart
from stages.page.compare_inputs import Question, Run
from stages.page.compare_settings import Comparison
from stages.page.formats import fixed
from stages.page.i18n import LANGUAGES, Sentence, dictionary, say
from stages.page.templating import environment
from stages.page.text_diff import Part, difference

SCRIPTS = ("look.js", "saving.js", "compare.js")
SPOKEN = ("browser.", "compare.", "page.")
SORTED_BY = ("rouge-l", "reward", "response_length")
"""Metrics by whose largest difference the answers can be sorted, besides by how much their text changed."""


class Told(NamedTuple):
    """One run's answer to one question."""

    run: Run
    colour: str
    parts: list[Part]
    """The text, with the characters marked that differ from the first run's (the first's: from the only other's)."""
    numbers: list[tuple[str, str]]
    """Metric's name, value."""


class Row(NamedTuple):
    number: int
    question: Question
    answers: list[Told]
    changed: float
    """0 … 1: how much of the text differs from the first run's, in the answer where that is most."""
    gains: dict[str, str]
    """Metric of `SORTED_BY` → the difference from the first run that is furthest from zero."""


def render(comparison: Comparison, notes: Sequence[Sentence], language: str) -> bytes:
    """The whole page; it opens in `language` and holds both."""
    script = "(() => {\n" + "\n".join(embedding.asset(name) for name in SCRIPTS) + "})();\n"
    title = {"page.title": {each: say(_title(comparison), each) for each in LANGUAGES}}
    words = {key: texts for key, texts in dictionary().items() if key.startswith(SPOKEN)} | title
    drawings, same = compare_curves.draw(comparison)
    questions = comparison.settings[0].runs[0].questions
    counts = {"questions": str(len(questions)), "dialogues": str(len({each.dialogue for each in questions}))}
    changed = compare_tables.changed(comparison)
    page = environment(None).get_template("compare.html.jinja").render(
        language=language,
        title=_title(comparison),
        page_title=title["page.title"][language],
        policy=embedding.policy(script),
        style=embedding.asset("page.css") + embedding.asset("compare.css"),
        counts=Sentence("compare.counts", counts),
        notes=notes,
        changed=changed if changed.rows else None,
        metrics=compare_tables.metrics(comparison),
        runs=compare_tables.each_run(comparison),
        legend=[(setting.name, line_chart.colour(at)) for at, setting in enumerate(comparison.settings)],
        drawings=drawings,
        same=[Sentence(f"compare.curve.{key}") for key in same],
        sorted_by=[metric for metric in comparison.metrics if metric.key in SORTED_BY],
        rows=sorted(rows(comparison), key=lambda row: -row.changed),
        words=embedding.json_text(words),
        script=script,
    )  # fmt: skip
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return page.encode("utf-8", errors="replace")


def rows(comparison: Comparison) -> list[Row]:
    """Every test question with each run's answer, in the order of the test split."""
    runs = [(line_chart.colour(at), run) for at, setting in enumerate(comparison.settings) for run in setting.runs]
    first = runs[0][1]
    found = []
    for at, question in enumerate(first.questions):
        compared = [difference(first.answers[at], run.answers[at]) for _, run in runs[1:]]
        parts = [compared[0].before if len(compared) == 1 else [Part(first.answers[at], False)]]
        parts += [each.after for each in compared]
        answers = [
            Told(run, colour, shown, _numbers(comparison, run, at))
            for (colour, run), shown in zip(runs, parts, strict=True)
        ]
        changed = max((each.share for each in compared), default=0.0)
        gains = {key: _gain(key, first, [run for _, run in runs[1:]], at) for key in SORTED_BY}
        found.append(Row(at + 1, question, answers, round(changed, 4), gains))
    return found


def _numbers(comparison: Comparison, run: Run, at: int) -> list[tuple[str, str]]:
    found = []
    for metric in comparison.metrics:
        if not metric.whole_set and (value := run.scores[metric.key][at]) is not None:
            found.append((metric.name, fixed(metric.scale * value, metric.digits)))
    return found


def _gain(key: str, first: Run, others: Sequence[Run], at: int) -> str:
    if any(key not in run.scores for run in [first, *others]):
        return ""
    before, *after = (run.scores[key][at] for run in [first, *others])
    gains = [value - before for value in after if before is not None and value is not None]
    return f"{max(gains, key=abs):.4f}" if gains else ""


def _title(comparison: Comparison) -> Sentence:
    names: Any = [Sentence("compare.name", {"name": setting.name}) for setting in comparison.settings]
    return Sentence("compare.title", {"settings": names})
