"""Scores of the models on the same samples → their values, their differences, and which exceed chance."""

from typing import NamedTuple

from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import BASELINE, CONTRASTS, METRICS, Metric
from stages.metrics.diversity import Distinct2
from stages.metrics.multiple import holm
from stages.page.inputs import Run

Contrast = tuple[str, str]


class Comparison(NamedTuple):
    metrics: list[Metric]
    """Those that this run has."""
    values: dict[str, dict[str, Interval]]
    """Model, and the baseline last; metric name → value with its interval, in the unit shown."""
    differences: dict[Contrast, dict[str, Interval]]
    """(before, after), metric name → mean paired difference, after − before."""
    significant: set[tuple[Contrast, str]]
    """The differences that stay larger than chance when all of them are looked at together (Holm)."""
    distinct_size: int
    """Bigrams in the draws that distinct-2 is measured on."""


def compare(run: Run, draws: int, seed: int) -> Comparison:
    """Compare the models by a paired bootstrap over the dialogues of the test split."""
    dialogues = run.dialogues
    compared = (*run.models, BASELINE)
    contrasts = [pair for pair in CONTRASTS if set(pair) <= set(run.models)]
    texts = {model: [sample.predicts[model] for sample in run.samples] for model in compared}
    distinct = Distinct2(texts, dialogues)
    metrics = [m for m in METRICS if m.whole_set or all(m.key in run.scores[model] for model in compared)]

    def value(model: str, metric: Metric) -> Interval:
        if metric.whole_set:
            return distinct.value(model)
        bounds = (0, 100 / metric.scale) if metric.bounded else None
        return bootstrap.mean(run.scores[model][metric.key], dialogues, draws, seed, bounds).scaled(metric.scale)

    def difference(before: str, after: str, metric: Metric) -> Interval:
        if metric.whole_set:
            return distinct.difference(before, after)
        most = 100 / metric.scale
        bounds = (-most, most) if metric.bounded else None
        first, second = run.scores[before][metric.key], run.scores[after][metric.key]
        return bootstrap.difference(first, second, dialogues, draws, seed, bounds).scaled(metric.scale)

    differences = {pair: {metric.name: difference(*pair, metric) for metric in metrics} for pair in contrasts}
    p_values = {(pair, name): found.p for pair, each in differences.items() for name, found in each.items()}
    return Comparison(
        metrics=metrics,
        values={model: {metric.name: value(model, metric) for metric in metrics} for model in compared},
        differences=differences,
        significant={(pair, name) for pair, name in holm(p_values) if differences[pair][name].beyond_chance},
        distinct_size=distinct.size,
    )
