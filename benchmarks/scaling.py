"""How time and memory grow with the samples, their length and the model: one table per task.

    python -m benchmarks.scaling                 # SFT
    python -m benchmarks.scaling --task predict

Each row doubles one thing and leaves the rest. Every run is a process of its own on one thread, and time is CPU time.
PPO's time is that of one update, and its samples are the update's answers.
"""

import argparse
import json
import sys
import tempfile
from typing import Any

from benchmarks.ppo import SETTINGS, result
from benchmarks.stages import TASKS

MODEL = SETTINGS | {"hidden_size": 128, "intermediate_size": 512}
STAGES = MODEL | {"samples": 64, "batch_size": 4, "predict_batch_size": 16, "new_tokens": 32, "repeat": 1}
PPO = MODEL | {"batch_size": 8, "response_length": 32, "micro_batch_size": 8, "tokens_per_batch": 768, "updates": 2}
MODELS: list[dict[str, Any]] = [{"hidden_size": size, "intermediate_size": 4 * size} for size in (128, 256, 512)]


def steps(task: str) -> dict[str, list[dict[str, Any]]]:
    """What each row changes of the settings, under the name of what grows."""
    samples, length = ("batch_size", "response_length") if task == "ppo" else ("samples", "repeat")
    start = PPO if task == "ppo" else STAGES
    return {
        "samples": [{samples: start[samples] * factor} for factor in (1, 2, 4)],
        "length": [{length: start[length] * factor} for factor in (1, 2, 4)],
        "model": MODELS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="growth of time and memory")
    parser.add_argument("--task", choices=(*TASKS, "ppo"), default="sft")
    task = parser.parse_args().task
    head = ("grows", "samples", "tokens each", "parameters, M", "CPU s", "× before", "floor, CPU s", "MB above imports")
    print("".join(f"{name:>17}" for name in head))
    known: dict[str, dict[str, float]] = {}
    for name, rows in steps(task).items():
        before = None
        for changes in rows:
            settings = (PPO if task == "ppo" else STAGES) | changes
            key = json.dumps(settings, sort_keys=True)
            known[key] = found = known.get(key) or measure(task, settings)
            cells = [
                f"{found['samples']:.0f}",
                f"{found['tokens_each']:.0f}",
                f"{found['parameters'] / 1e6:.1f}",
                f"{found['seconds']:.2f}",
                f"{found['seconds'] / before:.2f}" if before else "",
                f"{found['floor']:.2f}",
                f"{found['peak_mb'] - found['imports_mb']:.0f}",
            ]
            print(f"{name:>17}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
            before = found["seconds"]


def measure(task: str, settings: dict[str, Any]) -> dict[str, float]:
    """What the setup and one run report."""
    kind = "ppo" if task == "ppo" else "stages"
    with tempfile.TemporaryDirectory() as folder:
        setup = result([sys.executable, "-m", f"benchmarks.{kind}_setup", folder, json.dumps(settings)])
        words = [folder] if task == "ppo" else [task, folder]
        found = setup | result([sys.executable, "-m", f"benchmarks.{kind}_ours", *words])
    if task == "ppo":
        samples, seconds, floor = settings["batch_size"], found["seconds_per_update"], setup["floor"]
        tokens = setup["mean_prompt_tokens"] + settings["response_length"]
    else:
        samples, seconds = settings["samples"], found["seconds"]
        floor, tokens = samples * setup[f"floor_{task}"], setup["tokens_sft"] / samples
    return found | {"samples": samples, "seconds": seconds, "floor": floor, "tokens_each": tokens}


if __name__ == "__main__":
    main()
