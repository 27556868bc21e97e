"""PPO here against TRL's PPO trainer, on the same model, prompts and settings: prints one table.

    python -m benchmarks.ppo                                     # this project alone
    python -m benchmarks.ppo --trl-python .bench-venv/bin/python # and TRL, in its own virtual environment

Every run is a process of its own on one thread; the sides take turns, and time is CPU time, so that a busy machine
disturbs little. This file imports the standard library only: a process inherits its parent's peak memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "seed": 42,
    "vocab_size": 4000,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "batch_size": 8,
    "num_ppo_epochs": 4,
    "response_length": 64,
    "max_source_length": 256,
    "lora_r": 8,
    "learning_rate": 1e-4,
}
HERE = Path(__file__).resolve().parent
PARTS = ("rollouts", "scoring", "learning")


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO here against TRL's PPO trainer")
    parser.add_argument("--trl-python", help="the interpreter of the virtual environment that has TRL 1.12")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--updates", type=int, default=4, help="updates per run; the first is a warm-up")
    parser.add_argument("--micro-batch-size", type=int, default=2, help="TRL's responses per forward and backward pass")
    parser.add_argument("--tokens-per-batch", type=int, default=768, help="our tokens per forward and backward pass")
    parser.add_argument("--profile", action="store_true", help="show where the CPU time of this project's side goes")
    arguments = parser.parse_args()
    settings = SETTINGS | {
        "updates": arguments.updates,
        "micro_batch_size": arguments.micro_batch_size,
        "tokens_per_batch": arguments.tokens_per_batch,
    }

    with tempfile.TemporaryDirectory() as folder:
        setup = result([sys.executable, "-m", "benchmarks.ppo_setup", folder, json.dumps(settings)])
        ours = [sys.executable, "-m", "benchmarks.ppo_ours", folder]
        if arguments.profile:
            run([*ours, "--profile"], capture=False)
            return
        sides = {"ours": ours}
        if arguments.trl_python:
            sides["TRL"] = [arguments.trl_python, str(HERE / "ppo_trl.py"), folder]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, command in sides.items():
                runs[name].append(result(command))
    show(setup, runs, settings)


def run(command: list[str], capture: bool = True) -> str:
    """The command's output; its warnings are shown only if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, cwd=HERE.parent, env=environment, text=True, stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def result(command: list[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(run(command).strip().splitlines()[-1])
    return found


def show(setup: dict[str, float], runs: dict[str, list[dict[str, float]]], settings: dict[str, Any]) -> None:
    """The table: medians over the rounds, and the range of the speed."""
    rows = settings["batch_size"]
    print(
        f"{setup['parameters'] / 1e6:.2f}M parameters, vocabulary {setup['vocab_size']}, prompts of "
        f"{setup['mean_prompt_tokens']:.0f} tokens on average, {settings['response_length']} new tokens, rollout batch "
        f"{rows}, micro-batch {settings['micro_batch_size']}, {settings['num_ppo_epochs']} PPO epochs\n"
    )
    speed = {name: [rows / r["seconds_per_update"] for r in found] for name, found in runs.items()}
    memory = {name: [r["peak_mb"] - r["imports_mb"] for r in found] for name, found in runs.items()}
    print(f"{'':6}{'samples per CPU s':>20}{'range':>16}{'MB above imports':>20}{'tokens per update':>20}")
    for name, found in runs.items():
        tokens = statistics.median(r["tokens_per_update"] for r in found)
        print(
            f"{name:6}{statistics.median(speed[name]):20.2f}{min(speed[name]):9.2f}–{max(speed[name]):.2f}"
            f"{statistics.median(memory[name]):22.0f}{tokens:20.0f}"
        )
    if "TRL" in runs:
        faster = statistics.median(a / b for a, b in zip(speed["ours"], speed["TRL"], strict=True))
        smaller = statistics.median(a / b for a, b in zip(memory["ours"], memory["TRL"], strict=True))
        print(f"{'ratio':6}{faster:19.2f}×{'':16}{smaller:17.2f}×")
    seconds = statistics.median(r["seconds_per_update"] for r in runs["ours"])
    times = seconds / setup["floor"]
    print(f"\nCPU seconds per update, ours: {seconds:.2f}; floor {setup['floor']:.2f} ({times:.2f}×)")
    if "TRL" in runs:
        theirs = statistics.median(r["seconds_per_update"] for r in runs["TRL"])
        print(f"CPU seconds per update, TRL: {theirs:.2f} ({theirs / setup['floor']:.2f}× the floor)")
    for part in PARTS:
        least = setup[f"floor_{part}"] if part != "rollouts" else setup["floor_prefill"] + setup["floor_decode"]
        print(f"  {part:10}{statistics.median(r[part] for r in runs['ours']):6.2f}   floor {least:.2f}")
    print(f"matrix products: {setup['gflops_wide']:.0f} GFLOP/s, in decoding {setup['gflops_decode']:.0f}")


if __name__ == "__main__":
    main()
