"""How many steps a run will make, and what that costs at the last run's pace."""

import json
from pathlib import Path
from typing import Any

from stages.runtime.command import costs


def trained(sections: dict[str, Any], counts: dict[str, Any]) -> dict[str, int]:
    """How many samples sft and rm train on."""
    both = counts["train"]["samples"] + counts["validate"]["samples"]
    found = {"sft": both - max(1, round(both * sections["sft"].dev_ratio)), "rm": counts["preferences"]["train"]}
    return {stage: count for stage, count in found.items() if count}  # without preferences there is no reward model


def planned(sections: dict[str, Any], counts: dict[str, Any]) -> dict[str, int]:
    """Optimizer steps of sft and rm, updates of ppo, which needs a reward model."""
    steps = {
        stage: -(-round(count * sections[stage].num_train_epochs) // sections[stage].batch_size)
        for stage, count in trained(sections, counts).items()
    }
    return steps | ({"ppo": sections["ppo"].updates} if "rm" in steps else {})


def cost(steps: dict[str, int], reports: Path) -> str:
    """A forecast from the last run's cost: each stage at its pace, with as many steps as it would now have."""
    spent = costs()
    if missing := [stage for stage in steps if stage not in spent]:
        return f"no forecast of the time: {', '.join(missing)} did not run here yet"
    seconds = 0.0
    for stage, each in spent.items():
        path = reports / stage / "metrics.json"
        last = json.loads(path.read_text(encoding="utf-8")) if stage in steps and path.is_file() else {}
        before = last.get("steps") or last.get("updates")
        seconds += each["seconds"] * (steps[stage] / before if before else 1)
    peak = max(each["peak_mib"] for each in spent.values())
    return (
        f"at the last run's pace, with the same model and lengths: {seconds / 60:.0f} minutes for all stages, "
        f"{peak / 1024:.1f} GiB of memory"
    )
