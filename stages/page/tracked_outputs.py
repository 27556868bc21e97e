"""Numbers → the small files that Git keeps of a run: one object to compare runs by, and three tables to plot.

All else of a run lies in DVC's cache. `dvc metrics diff`, `dvc exp show` and `dvc plots diff` read these files only,
so they stay short, and they work in a clone that has pulled nothing.
"""

from collections.abc import Iterator
from typing import Any

from stages.metrics.definitions import BASELINE
from stages.page.comparison import Comparison
from stages.page.inputs import Run
from stages.page.probes import Probes

TRAINED = ("base", "sft", "rm")
"""The stages with a loss on training and on held-out data."""


def headline(run: Run, comparison: Comparison, probes: Probes | None) -> dict[str, dict[str, float]]:
    """What two runs are compared by, rounded to four decimals: a section per model, PPO's first, then what the probes
    found and how training ended.

    A number that a run does not have (`eval_loss.base` of a base that was not trained here) is left out.
    """
    losses = {stage: run.documents.get(f"train_{stage}", {}).get("eval_loss") for stage in TRAINED}
    sections: dict[str, dict[str, Any]] = {
        **{
            model: {metric.name: comparison.values[model][metric.name].value for metric in comparison.metrics}
            for model in (*reversed(run.models), BASELINE)
        },
        **(_probed(run, probes) if probes else {}),
        "eval_loss": losses,
    }
    if probes:
        last = run.documents["train_ppo"].get("last", {})
        sections["rollouts"] = {key: last.get(key) for key in ("score", "reward", "kl", "response_length")}
    return {
        name: {key: round(value, 4) for key, value in section.items() if value is not None}
        for name, section in sections.items()
    }


def _probed(run: Run, probes: Probes) -> dict[str, dict[str, Any]]:
    trained = run.documents["train_rm"]
    accuracies = {key: trained.get(f"eval_{key}") for key in ("accuracy", "accuracy_chosen_not_longer")}
    equal = probes.gain_at_equal_length
    return {
        "reward_model": accuracies
        | {
            "accuracy_other_question": probes.other_question.value,
            "accuracy_swapped_answer": probes.swapped.value,
        },
        "probes": {
            "gain": probes.gain.value,
            "gain_at_equal_length": equal.value if equal else None,
            "gain_when_cut": probes.gain_when_cut.value,
            "win_rate": probes.wins.plain.value,
            "win_rate_length_controlled": probes.wins.length_controlled.value,
            "kl": probes.kl.value,
        },
    }


def losses(run: Run) -> Iterator[dict[str, Any]]:
    """One row per stage, part and logging step: `stage,part,step,loss`."""
    for stage in (stage for stage in TRAINED if stage in run.curves):
        for part, curve, column in (("train", stage, "loss"), ("eval", f"{stage}_eval", "eval_loss")):
            for step, loss in zip(run.curves[curve]["step"], run.curves[curve][column], strict=True):
                yield {"stage": stage, "part": part, "step": step, "loss": loss}


def updates(run: Run) -> Iterator[dict[str, Any]]:
    """One row per PPO update, with every column of its curve; none of a run without PPO."""
    curve = run.curves.get("ppo", {})
    for values in zip(*curve.values(), strict=True):
        yield dict(zip(curve, values, strict=True))


def models(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One row per model and metric, with its 95 % interval: `model,metric,value,low,high`."""
    for metric in comparison.metrics:
        for model, values in comparison.values.items():
            found = values[metric.name]
            yield {"model": model, "metric": metric.name, "value": found.value, "low": found.low, "high": found.high}
