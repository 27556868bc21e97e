"""Wall seconds of a training step on one thread, and on all, which spin or sleep while they wait for each other.

    python -m benchmarks.threads            # on a machine that is otherwise quiet
    python -m benchmarks.threads --beside   # with a busy process beside it, which the benchmark starts

Each mode is a process of its own: OpenMP reads its settings when it is loaded.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

MODES: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all, spinning while they wait": {"OMP_WAIT_POLICY": "ACTIVE"},
    "all, sleeping while they wait": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BASE = Path(__file__).resolve().parent.parent / "data" / "base"


def main() -> None:
    parser = argparse.ArgumentParser(description="one thread, and threads that spin or sleep")
    parser.add_argument("--beside", action="store_true", help="with a busy process beside it")
    parser.add_argument("--seconds", type=float, default=8, help="measured of each mode, after a quarter of that")
    parser.add_argument("--mode", choices=MODES, help="this mode alone, in this process")
    arguments = parser.parse_args()
    if arguments.mode:
        steps = step_seconds(arguments.seconds)
        print(f"{arguments.mode:32}{steps:8.3f} s a step")
        return
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if arguments.beside else None
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    try:
        for mode, settings in MODES.items():
            command = [sys.executable, "-m", "benchmarks.threads", "--mode", mode, "--seconds", str(arguments.seconds)]
            subprocess.run(command, env=plain | settings, check=True)
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()


def step_seconds(seconds: float) -> float:
    """The default's base with the adapter of SFT, 16 samples of 70 tokens: mean wall seconds of a step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=32, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)
    ids = torch.randint(3, model.config.vocab_size, (16, 70))
    started, steps, warm = time.monotonic(), 0, seconds / 4
    while (now := time.monotonic()) - started < warm + seconds or not steps:
        measured = now - started >= warm
        if measured and not steps:
            begun = now
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += measured
    return (time.monotonic() - begun) / steps


if __name__ == "__main__":
    main()
