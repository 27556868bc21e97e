"""The whole pipeline on real weights: `make test-real`, which is no part of `make test`. Minutes on one CPU thread.

In a copy of the checkout, with the profile smollm2-135m: every stage; PPO once more, killed half-way and resumed, must
give the same bytes; the export must answer in plain transformers. The scores and an answer of each model are printed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import typer
from checkouts import at_work_in, copy_working_tree, run

MODEL = Path("models/smollm2-135m")
QUESTION = "I have a cold since two days. What should I do?"
PPO = (
    "python -m stages.ppo --train data/processed/train.jsonl --validate data/processed/validate.jsonl "
    "--base models/base --sft models/sft --rm models/rm --to again/ppo --log again/log --params params.yaml"
)
ASK = """\
import sys
from transformers import pipeline
chat = pipeline("text-generation", sys.argv[1])
print(chat([{"role": "user", "content": sys.argv[2]}], do_sample=False)[0]["generated_text"][-1]["content"])
"""


def main(work: Path) -> None:
    """Run it all below WORK, a new folder, which is kept."""
    if not (MODEL / "config.json").is_file():
        sys.exit(f"error: {MODEL} is missing: make real-model")
    checkout = work.resolve() / "checkout"
    copy_working_tree(checkout)
    (checkout / "dvc.lock").unlink()
    (checkout / MODEL.parent).mkdir(exist_ok=True)
    (checkout / MODEL).symlink_to(MODEL.resolve())
    with at_work_in(checkout):
        step("profile", "python -m stages.profile smollm2-135m", checkout)
        step("repro", "dvc repro", checkout)
        kill_half_way(checkout)
        step("resume", PPO, checkout)
        weights = [
            (folder / "adapter_model.safetensors").read_bytes() for folder in (Path("models/ppo"), Path("again/ppo"))
        ]
        assert weights[0] == weights[1], "a run that was killed and resumed gives other weights"
        print("ppo, killed and resumed: the same bytes", flush=True)
        step("export", "python -m stages.export --to exported", checkout)
        done = subprocess.run(
            [sys.executable, "-c", ASK, "exported", QUESTION], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip(), "the exported model says nothing"
        print(run("python -m stages.results", checkout))
        answers = {
            name: Path(f"reports/answers/{name}.jsonl").read_text("utf-8").splitlines()
            for name in ("base", "sft", "ppo")
        }
        for number in (0, 5):
            rows = {name: json.loads(lines[number]) for name, lines in answers.items()}
            print(f"{rows['base']['instruction']}\n  reference: {rows['base']['label']}")
            print("".join(f"  {name}: {row['predict']!r}\n" for name, row in rows.items()))
        print(f"{QUESTION}\n  exported, greedy: {done.stdout.strip()!r}")


def step(name: str, command: str, checkout: Path) -> None:
    started = time.monotonic()
    run(command, checkout)
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def kill_half_way(checkout: Path) -> None:
    """Begin PPO and kill it once its second update is saved."""
    stage = subprocess.Popen(PPO.split(), cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while stage.poll() is None and not list(checkout.glob(".work/ppo/*/checkpoint-2/sealed.json")):
        time.sleep(0.2)
    assert stage.poll() is None, "ppo ended before it could be killed"
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    assert not (checkout / "again/ppo").exists()


if __name__ == "__main__":
    typer.run(main)
