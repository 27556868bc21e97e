"""SFT, RM and predict here against TRL 1.16 and transformers, or LLaMA-Factory, on the same model and texts.

    python -m benchmarks.stages                    # all three
    python -m benchmarks.stages --task sft --rounds 5
    python -m benchmarks.stages --llamafactory-python .bench-lf/bin/python    # LLaMA-Factory 0.9.5 in TRL's place

Each run is a process of its own on one thread; the sides take turns, and time is CPU time. TRL runs in this
environment, LLaMA-Factory in its own. Without `max_length` TRL trains on every token of every text, as ours does.
"""

import argparse
import json
import statistics
import sys
import tempfile

from benchmarks.ppo import HERE, SETTINGS, result

TASKS = ("sft", "rm", "predict")


HEAD = (
    f"{'':8}{'samples per CPU s':>30}{'MB above imports':>21}{'padding, %':>15}{'mean loss':>19}{'× floor':>14}\n"
    f"{'':8}{'ours':>10}{'peer':>10}{'ratio':>10}{'ours':>11}{'peer':>10}{'ours':>8}{'peer':>7}{'ours':>10}{'peer':>9}"
    f"{'ours':>7}{'peer':>7}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="SFT, RM and predict here against TRL and transformers")
    parser.add_argument("--task", choices=TASKS, action="append", help="all by default")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--samples", type=int, default=128, help="texts, pairs or questions")
    parser.add_argument("--batch-size", type=int, default=4, help="texts or pairs in a forward pass, two in a step")
    parser.add_argument("--predict-batch-size", type=int, default=64, help="questions that are answered side by side")
    parser.add_argument("--peer-predict-batch-size", type=int, help="the peer's, where it differs (its default is 4)")
    parser.add_argument("--apart", action="store_true", help="the last round of each dialogue alone: nothing to share")
    parser.add_argument("--new-tokens", type=int, default=128, help="of each answer; none ends before")
    parser.add_argument("--llamafactory-python", help="the interpreter of the virtual environment of LLaMA-Factory")
    arguments = parser.parse_args()
    peer = [sys.executable, str(HERE / "stages_trl.py")]
    if arguments.llamafactory_python:
        peer = [arguments.llamafactory_python, str(HERE / "stages_llamafactory.py")]
    settings = SETTINGS | {
        "samples": arguments.samples,
        "apart": arguments.apart,
        "batch_size": arguments.batch_size,
        "predict_batch_size": arguments.predict_batch_size,
        "peer_predict_batch_size": arguments.peer_predict_batch_size or arguments.predict_batch_size,
        "new_tokens": arguments.new_tokens,
    }
    with tempfile.TemporaryDirectory() as folder:
        setup = result([sys.executable, "-m", "benchmarks.stages_setup", folder, json.dumps(settings)])
        print(
            f"{setup['parameters'] / 1e6:.2f}M parameters, vocabulary {setup['vocab_size']}, {arguments.samples} texts "
            f"of {setup['tokens_sft'] / arguments.samples:.0f} tokens on average\n"
        )
        print(HEAD)
        for task in arguments.task or TASKS:
            sides = {
                "ours": [sys.executable, "-m", "benchmarks.stages_ours", task, folder],
                "peer": [*peer, task, folder],
            }
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for _ in range(arguments.rounds):
                for name, command in sides.items():
                    runs[name].append(result(command))
            tokens = setup.get(f"tokens_{task}")
            show(task, runs, setup[f"floor_{task}"], tokens and [tokens, setup.get(f"peer_tokens_{task}", tokens)])


def show(task: str, runs: dict[str, list[dict[str, float]]], floor: float, tokens: list[float] | None) -> None:
    """One line: medians over the rounds. `tokens`: what a training run of either side reads, without padding."""
    speeds = {name: [run["samples"] / run["seconds"] for run in found] for name, found in runs.items()}
    ratio = statistics.median(a / b for a, b in zip(speeds["ours"], speeds["peer"], strict=True))
    speed = [statistics.median(values) for values in speeds.values()]
    memory = [statistics.median(run["peak_mb"] - run["imports_mb"] for run in found) for found in runs.values()]
    padding = losses = f"{'':8}{'':8}"
    if tokens is not None:
        sides = zip(tokens, runs.values(), strict=True)
        padding = "".join(f"{100 * (1 - count / found[0]['positions']):8.1f}" for count, found in sides)
        losses = "".join(f"{found[0]['loss']:9.4f}" for found in runs.values())
    print(
        f"{task:8}{speed[0]:10.2f}{speed[1]:10.2f}{ratio:9.2f}×{memory[0]:11.0f}{memory[1]:10.0f}"
        f"{padding:>15} {losses:>18}{1 / speed[0] / floor:7.1f}{1 / speed[1] / floor:7.1f}"
    )


if __name__ == "__main__":
    main()
