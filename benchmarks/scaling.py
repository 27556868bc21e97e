"""How time and memory of SFT, RM and predict grow with the samples, their length and the model: one table per task.

    python -m benchmarks.scaling                 # SFT
    python -m benchmarks.scaling --task predict

Each row doubles one thing and leaves the rest. Every run is a process of its own on one thread, and time is CPU time.
"""

import argparse
import json
import sys
import tempfile
from typing import Any

from benchmarks.ppo import SETTINGS, result
from benchmarks.stages import TASKS

START = SETTINGS | {
    "samples": 64, "batch_size": 4, "predict_batch_size": 16, "new_tokens": 32, "repeat": 1, "hidden_size": 128,
    "intermediate_size": 512,
}  # fmt: skip
STEPS: dict[str, list[dict[str, Any]]] = {
    "samples": [{"samples": 64}, {"samples": 128}, {"samples": 256}],
    "length": [{"repeat": 1}, {"repeat": 2}, {"repeat": 4}],
    "model": [{"hidden_size": size, "intermediate_size": 4 * size} for size in (128, 256, 512)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description="growth of time and memory")
    parser.add_argument("--task", choices=TASKS, default="sft")
    task = parser.parse_args().task
    head = ("grows", "samples", "tokens each", "parameters, M", "CPU s", "× before", "floor, CPU s", "MB above imports")
    print("".join(f"{name:>17}" for name in head))
    known: dict[str, dict[str, float]] = {}
    for name, steps in STEPS.items():
        before = None
        for changes in steps:
            settings = START | changes
            key = json.dumps(settings, sort_keys=True)
            known[key] = found = known.get(key) or measure(task, settings)
            samples, seconds = settings["samples"], found["seconds"]
            cells = [
                f"{samples}",
                f"{found['tokens_sft'] / samples:.0f}",
                f"{found['parameters'] / 1e6:.1f}",
                f"{seconds:.2f}",
                f"{seconds / before:.2f}" if before else "",
                f"{samples * found[f'floor_{task}']:.2f}",
                f"{found['peak_mb'] - found['imports_mb']:.0f}",
            ]
            print(f"{name:>17}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
            before = seconds


def measure(task: str, settings: dict[str, Any]) -> dict[str, float]:
    """What the setup and one run report."""
    with tempfile.TemporaryDirectory() as folder:
        setup = result([sys.executable, "-m", "benchmarks.stages_setup", folder, json.dumps(settings)])
        return setup | result([sys.executable, "-m", "benchmarks.stages_ours", task, folder])


if __name__ == "__main__":
    main()
