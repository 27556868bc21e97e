"""Scores of the three models on the same samples → their values, their differences, and which exceed chance."""

from collections.abc import Mapping
from typing import NamedTuple

from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval
from stages.page.inputs import MODELS, Run

CONTRASTS = (("base", "sft"), ("sft", "ppo"), ("base", "ppo"))


class Metric(NamedTuple):
    """How a number is shown, and which direction of it is the better one."""

    name: str
    digits: int
    better: int
    """+1: more is better, -1: less is better, 0: neither."""
    score: str | None = None
    """Its key among the scores of a sample; None for a number of the whole test set, which has no paired difference."""
    scale: float = 1


METRICS = (
    Metric("rouge-1", 2, 1, "rouge-1"),
    Metric("rouge-2", 2, 1, "rouge-2"),
    Metric("rouge-l", 2, 1, "rouge-l"),
    Metric("bleu-4", 2, 1, "bleu-4"),
    Metric("reward", 2, 1, "reward"),
    Metric("response_length", 1, 0, "response_length"),
    Metric("response_tokens", 1, 0, "response_tokens"),
    Metric("eos_rate", 1, 1, "eos", 100),
    Metric("repetition", 1, -1, "repetition", 100),
    Metric("distinct-2", 2, 1),
)


class Comparison(NamedTuple):
    values: dict[str, dict[str, Interval]]
    """Model, metric name → value with its interval, in the unit shown."""
    differences: dict[tuple[str, str], dict[str, Interval]]
    """(before, after), metric name → mean paired difference, after − before."""


def compare(run: Run, draws: int, seed: int) -> Comparison:
    """Compare the models by a paired bootstrap over the test samples."""
    scores = {model: run.scores[model] | {"repetition": repetitions(run, model)} for model in MODELS}
    values: dict[str, dict[str, Interval]] = {model: {} for model in MODELS}
    differences: dict[tuple[str, str], dict[str, Interval]] = {contrast: {} for contrast in CONTRASTS}
    for metric in METRICS:
        for model in MODELS:
            if metric.name in run.metrics[model]:
                found = _reported(run.metrics[model], metric)
            else:
                found = bootstrap.mean(scores[model][str(metric.score)], draws, seed)
            values[model][metric.name] = _scaled(found, metric.scale)
        if metric.score:
            for before, after in CONTRASTS:
                found = bootstrap.difference(scores[before][metric.score], scores[after][metric.score], draws, seed)
                differences[before, after][metric.name] = _scaled(found, metric.scale)
    return Comparison(values, differences)


def repetitions(run: Run, model: str) -> list[float]:
    return [repetition(sample.predicts[model]) for sample in run.samples]


def repetition(text: str) -> float:
    """Share (0..1) of a text's 4-grams of characters that stood in it before: 0 for none, near 1 for a loop."""
    grams = [text[i : i + 4] for i in range(len(text) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _reported(metrics: Mapping[str, object], metric: Metric) -> Interval:
    """What predict measured. A metric without an interval there gets one of no width."""
    value = float(metrics[metric.name])  # type: ignore[arg-type]
    ends = metrics["ci95"].get(metric.name, {"low": value, "high": value})  # type: ignore[attr-defined]
    return Interval(value, float(ends["low"]), float(ends["high"]))


def _scaled(interval: Interval, scale: float) -> Interval:
    return Interval(*(scale * number for number in interval))
