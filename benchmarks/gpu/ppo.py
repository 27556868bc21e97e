"""PPO here against TRL 1.12's, on Qwen3-0.6B's trunk with random weights, in one run.

    make .bench-venv/installed                                           # TRL 1.12 in an environment of its own
    python -m benchmarks.gpu.ppo --trl-python .bench-venv/bin/python

Both sides answer the same prompts in full length, in bfloat16, each in a process of its own; `benchmarks.ppo` says how
they differ.
"""

import json
import sys
import tempfile
from typing import Any

from benchmarks import ppo
from benchmarks.gpu.session import Numbers, Session

FULL = {
    "device": "cuda", "dtype": "bfloat16", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "batch_size": 32, "num_ppo_epochs": 4, "response_length": 128,
    "updates": 4, "micro_batch_size": 8, "tokens_per_batch": 4096,
}  # fmt: skip
TINY = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 400,
    "num_key_value_heads": 1, "batch_size": 2, "num_ppo_epochs": 1, "response_length": 4, "lora_r": 2, "updates": 2,
    "micro_batch_size": 1, "tokens_per_batch": 200,
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    trl = None
    if "--trl-python" in words:
        at = words.index("--trl-python")
        trl = words[at + 1]
        del words[at : at + 2]
    session = Session("ppo", "PPO here and TRL 1.12's; --trl-python names the interpreter that has it", words)
    settings: dict[str, Any] = ppo.SETTINGS | (TINY if session.tiny else FULL)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": [sys.executable, "-m", "benchmarks.ppo_ours", folder]}
        if trl:
            sides["TRL"] = [trl, str(ppo.HERE / "ppo_trl.py"), folder]
        if set(sides) - set(session.cases):
            ppo.result([sys.executable, "-m", "benchmarks.ppo_setup", folder, json.dumps(settings)])
        for name, command in sides.items():
            session.run(name, lambda command=command: measured(command, settings["batch_size"]))
    session.end(2)


def measured(command: list[str], rows: int) -> Numbers:
    found = ppo.result(command)
    return {"samples_per_s": rows / found["seconds_per_update"]} | {
        name: found[name] for name in ("seconds_per_update", "tokens_per_update", "peak_gpu_mb", "rollouts", "scoring",
                                       "learning") if name in found
    }  # fmt: skip


if __name__ == "__main__":
    main()
