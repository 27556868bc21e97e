"""Runs → settings, what differs between these, and whether their answers differ by more than chance."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from stages.metrics import seeds
from stages.metrics.bootstrap import MIN_UNITS, Interval
from stages.metrics.definitions import METRICS, Metric
from stages.metrics.diversity import Distinct2
from stages.metrics.multiple import holm
from stages.page.compare_inputs import Run
from stages.page.i18n import Sentence
from stages.runtime.errors import UserError

DRAWS = 1000
DRAW_SEED = 0
CODE = "stages"
"""How a path of code begins; any other that no stage writes is data."""


class Setting(NamedTuple):
    """Runs that differ in nothing but their seed."""

    runs: list[Run]

    @property
    def name(self) -> str | Sentence:
        first = self.runs[0].name
        more = {"name": first, "more": str(len(self.runs) - 1)}
        return Sentence("compare.seeds", more) if len({run.name for run in self.runs}) > 1 else first


class Change(NamedTuple):
    """A parameter, a path of code or data, or a part of the environment that is not the same in all settings."""

    kind: str
    """`stack`, `parameter`, `data`, `code` or `environment`."""
    key: str
    values: list[str | None]
    """One per setting; None where it does not exist."""


class Comparison(NamedTuple):
    settings: list[Setting]
    changes: list[Change]
    metrics: list[Metric]
    values: dict[str, list[list[float]]]
    """Metric name → per setting the mean of each run, in the unit shown."""
    differences: list[dict[str, Interval | None]]
    """Per setting after the first: metric name → the difference from the first; None where none can be told."""
    marks: list[dict[str, str]]
    """Like `differences`: `better`, `worse`, `more`, `less`, `unknown`, or `judge` for another reward model."""


def same_questions(runs: Sequence[Run]) -> None:
    """Raises UserError where two runs answered different test questions: nothing could be paired."""
    first = runs[0]
    for run in runs[1:]:
        if len(run.questions) != len(first.questions):
            counts = f"{len(run.questions)} and {len(first.questions)}"
            raise UserError(
                f"{run.name} and {first.name} answered {counts} test questions; only runs on the same compare"
            )
        for at, (ours, theirs) in enumerate(zip(run.questions, first.questions, strict=True), start=1):
            if ours != theirs:
                raise UserError(
                    f"{run.name} and {first.name} answered different test questions, from number {at} on; "
                    "only runs on the same compare"
                )


def without_duplicates(runs: Sequence[Run]) -> tuple[list[Run], list[Sentence]]:
    """The runs that differ in more than their name, and what to say of those left out."""
    kept: list[Run] = []
    dropped = []
    for run in runs:
        twin = next((other for other in kept if run._replace(name=other.name) == other), None)
        if twin:
            dropped.append(Sentence("compare.duplicate", {"name": run.name, "twin": twin.name}))
        else:
            kept.append(run)
    return kept, dropped


def group(runs: Sequence[Run]) -> list[Setting]:
    """In the order in which the settings first occur."""
    found: dict[str, Setting] = {}
    for run in runs:
        params = {key: value for key, value in run.params.items() if key != "seed"}
        key = repr((run.model, sorted(params.items()), sorted(run.sources.items())))
        found.setdefault(key, Setting([])).runs.append(run)
    return list(found.values())


def changes(settings: Sequence[Setting]) -> list[Change]:
    """Parameters first. Of a path only the start of its hash is shown: what counts is that it differs.

    What one stack uses and another does not is not a change: sft's answers depend on no parameter of PPO's.
    """
    firsts = [setting.runs[0] for setting in settings]
    one_seed = all(len(setting.runs) == 1 for setting in settings)
    params = [{key: value for key, value in run.params.items() if one_seed or key != "seed"} for run in firsts]
    sources = [{path: md5[:7] for path, md5 in run.sources.items()} for run in firsts]
    code = [{path: md5 for path, md5 in each.items() if path.startswith(CODE)} for each in sources]
    data = [{path: md5 for path, md5 in each.items() if not path.startswith(CODE)} for each in sources]
    stacks = [{"stack": run.model} for run in firsts]
    kinds = {"stack": stacks, "parameter": params, "data": data, "code": code,
             "environment": [run.environment for run in firsts]}  # fmt: skip
    several_stacks = len({run.model for run in firsts}) > 1
    found = []
    for kind, documents in kinds.items():
        for key in dict.fromkeys(key for document in documents for key in document):
            values = [document.get(key) for document in documents]
            if len({value for value in values if not (several_stacks and value is None)}) > 1:
                found.append(Change(kind, key, values))
    return found


def compare(settings: Sequence[Setting]) -> Comparison:
    """Compare every setting with the first, paired by question, the intervals drawn by dialogue."""
    runs = [run for setting in settings for run in setting.runs]
    dialogues = [question.dialogue for question in runs[0].questions]
    metrics = [m for m in METRICS if m.whole_set or all(m.key in run.scores for run in runs)]
    numbers = {id(run): str(at) for at, run in enumerate(runs)}
    distinct = Distinct2({numbers[id(run)]: run.answers for run in runs}, dialogues)

    def mean(run: Run, metric: Metric) -> float:
        if metric.whole_set:
            return distinct.value(numbers[id(run)]).value
        return metric.scale * statistics.fmean(value for value in run.scores[metric.key] if value is not None)

    def difference(before: Setting, after: Setting, metric: Metric) -> Interval | None:
        if metric.name == "reward" and len({run.judge for run in before.runs + after.runs}) > 1:
            return None
        if metric.whole_set:
            means = [[mean(run, metric) for run in side.runs] for side in (before, after)]
            pairs = [distinct.difference(numbers[id(b)], numbers[id(a)]) for b in before.runs for a in after.runs]
            return seeds.widened(_average(pairs), *means)
        most = 100 / metric.scale
        bounds = (-most, most) if metric.bounded else None
        one, other = ([run.scores[metric.key] for run in side.runs] for side in (before, after))
        return seeds.difference(one, other, dialogues, DRAWS, DRAW_SEED, bounds).scaled(metric.scale)

    differences = [{m.name: difference(settings[0], after, m) for m in metrics} for after in settings[1:]]
    return Comparison(
        settings=list(settings),
        changes=changes(settings),
        metrics=metrics,
        values={m.name: [[mean(run, m) for run in setting.runs] for setting in settings] for m in metrics},
        differences=differences,
        marks=_marks(metrics, differences),
    )


def _average(intervals: Sequence[Interval]) -> Interval:
    """Of differences that share their questions: no wider than the mean of their widths, so that is what it gets."""
    value, low, high = (statistics.fmean(each[at] for each in intervals) for at in range(3))
    return Interval(value, low, high, intervals[0].units, max(each.p for each in intervals))


def _marks(metrics: Sequence[Metric], differences: Sequence[dict[str, Interval | None]]) -> list[dict[str, str]]:
    """A difference counts when it is significant among all that are looked at together (Holm)."""
    p_values = {
        (at, name): interval.p
        for at, each in enumerate(differences)
        for name, interval in each.items()
        if interval and interval.proves
    }
    significant = holm(p_values)

    def mark(at: int, metric: Metric) -> str:
        interval = differences[at][metric.name]
        if interval is None:
            return "judge"
        if (at, metric.name) not in significant or not interval.beyond_chance:
            return "unknown"
        if metric.better == 0:
            return "more" if interval.value > 0 else "less"
        return "better" if interval.value * metric.better > 0 else "worse"

    return [{metric.name: mark(at, metric) for metric in metrics} for at in range(len(differences))]


def caveats(comparison: Comparison) -> list[Sentence]:
    """How far the intervals reach, and where they reach nowhere."""
    several = any(len(setting.runs) > 1 for setting in comparison.settings)
    found = [Sentence("compare.several-seeds" if several else "compare.one-seed")]
    questions = comparison.settings[0].runs[0].questions
    if len({question.dialogue for question in questions}) < MIN_UNITS:
        found.append(Sentence("compare.few", {"units": str(MIN_UNITS)}))
    return found
