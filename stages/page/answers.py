"""Samples with their scores → what the answer browser reads."""

from typing import Any

from stages.metrics.definitions import METRICS
from stages.page.inputs import Run


def browser(run: Run) -> dict[str, Any]:
    """Every text once, and per sample the numbers of its texts: a dialogue's rounds come back in each later sample.

    Returns:
        `texts`; `models`: their names; `metrics`: [[key, name, digits, scale], …] of the scores; `samples`: [[round's
        question, round's answer, …], question, reference, [a model's answer, …], [[a model's score, …], …]].
    """
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    shown = [metric for metric in METRICS if metric.key in run.scores[run.models[0]]]
    samples = []
    for index, sample in enumerate(run.samples):
        scores = [[_short(run.scores[model][metric.key][index]) for metric in shown] for model in run.models]
        samples.append(
            [
                [number(text) for turn in sample.history for text in turn],
                number(sample.instruction),
                number(sample.label),
                [number(sample.displayed.get(model, sample.predicts[model])) for model in run.models],
                scores,
            ]
        )
    metrics = [[m.key, m.name, m.digits, m.scale] for m in shown]
    return {"texts": list(texts), "models": run.models, "metrics": metrics, "samples": samples}


def _short(value: float | None) -> float | int | None:
    if value is None:
        return None
    return int(value) if value.is_integer() else float(f"{value:.4g}")
