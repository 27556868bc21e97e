"""SFT, RM and predict here against TRL 1.16 and transformers, on the same model and texts: prints one table.

    python -m benchmarks.stages                    # all three
    python -m benchmarks.stages --task sft --rounds 5

Both sides run in this environment, each run in a process of its own on one thread; they take turns, and time is CPU
time. Without `max_length` TRL trains on every token of every text, as ours does.
"""

import argparse
import json
import statistics
import sys
import tempfile

from benchmarks.ppo import HERE, SETTINGS, result

TASKS = ("sft", "rm", "predict")


def main() -> None:
    parser = argparse.ArgumentParser(description="SFT, RM and predict here against TRL and transformers")
    parser.add_argument("--task", choices=TASKS, action="append", help="all by default")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--samples", type=int, default=128, help="texts, pairs or questions")
    parser.add_argument("--batch-size", type=int, default=4, help="texts or pairs in a forward pass, two in a step")
    parser.add_argument("--predict-batch-size", type=int, default=64, help="questions that are answered side by side")
    parser.add_argument("--new-tokens", type=int, default=128, help="of each answer; none ends before")
    arguments = parser.parse_args()
    settings = SETTINGS | {
        "samples": arguments.samples,
        "batch_size": arguments.batch_size,
        "predict_batch_size": arguments.predict_batch_size,
        "new_tokens": arguments.new_tokens,
    }
    with tempfile.TemporaryDirectory() as folder:
        setup = result([sys.executable, "-m", "benchmarks.stages_setup", folder, json.dumps(settings)])
        print(
            f"{setup['parameters'] / 1e6:.2f}M parameters, vocabulary {setup['vocab_size']}, {arguments.samples} texts "
            f"of {setup['tokens'] / arguments.samples:.0f} tokens on average\n"
        )
        print(f"{'':8}{'samples per CPU s':>32}{'MB above imports':>22}{'':>8}{'mean loss':>18}{'× floor':>9}")
        print(
            f"{'':8}{'ours':>10}{'peer':>10}{'ratio':>12}{'ours':>11}{'peer':>11}{'':8}{'ours':>9}{'peer':>9}{'ours':>9}"
        )
        for task in arguments.task or TASKS:
            sides = {
                "ours": [sys.executable, "-m", "benchmarks.stages_ours", task, folder],
                "peer": [sys.executable, str(HERE / "stages_trl.py"), task, folder],
            }
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for _ in range(arguments.rounds):
                for name, command in sides.items():
                    runs[name].append(result(command))
            show(task, runs, setup[f"floor_{task}"])


def show(task: str, runs: dict[str, list[dict[str, float]]], floor: float) -> None:
    """One line: medians over the rounds."""
    speed = {name: [run["samples"] / run["seconds"] for run in found] for name, found in runs.items()}
    ratio = statistics.median(a / b for a, b in zip(speed["ours"], speed["peer"], strict=True))
    memory = {name: statistics.median(r["peak_mb"] - r["imports_mb"] for r in found) for name, found in runs.items()}
    losses = "".join(f"{found[0]['loss']:9.4f}" if "loss" in found[0] else f"{'':9}" for found in runs.values())
    medians = {name: statistics.median(values) for name, values in speed.items()}
    print(
        f"{task:8}{medians['ours']:10.2f}{medians['peer']:10.2f}{ratio:11.2f}×{memory['ours']:11.0f}{memory['peer']:11.0f}"
        f"{'':8}{losses}{1 / medians['ours'] / floor:9.1f}"
    )


if __name__ == "__main__":
    main()
