"""Samples with their scores → what the answer browser reads."""

from typing import Any

from stages.page.inputs import MODELS, SCORES, Run

SHOWN = (*SCORES, "reward")


def browser(run: Run) -> dict[str, Any]:
    """Every text once, and per sample the numbers of its texts: a dialogue's rounds come back in each later sample.

    Returns:
        `texts`; `scores`, the names; `samples`: [[round's question, round's answer, …], question, reference,
        [a model's answer, …], [[a model's score, …], …]].
    """
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    samples = []
    for index, sample in enumerate(run.samples):
        scores = [[_short(run.scores[model][name][index]) for name in SHOWN] for model in MODELS]
        samples.append(
            [
                [number(text) for turn in sample.history for text in turn],
                number(sample.instruction),
                number(sample.label),
                [number(sample.predicts[model]) for model in MODELS],
                scores,
            ]
        )
    return {"texts": list(texts), "scores": SHOWN, "samples": samples}


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else float(f"{value:.4g}")
