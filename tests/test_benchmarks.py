"""Every benchmark runs: in its smallest form, so that none breaks unnoticed when the stages change."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from parameters import ROOT

from benchmarks import ppo, scaling, stages

SMALL = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "batch_size": 2,
    "num_ppo_epochs": 1,
    "response_length": 4,
    "lora_r": 2,
    "samples": 8,
    "predict_batch_size": 4,
    "new_tokens": 4,
    "updates": 2,
    "micro_batch_size": 1,
    "tokens_per_batch": 200,
}
PEERS = {"ppo_trl", "stages_trl", "stages_llamafactory"}
"""They import what stands beside them: run as files, by the interpreter of a peer's environment."""


@pytest.mark.parametrize(
    "name", sorted(f.stem for f in (ROOT / "benchmarks").glob("*.py") if f.stem not in PEERS | {"__init__"})
)
def test_every_file_imports(name):
    importlib.import_module(f"benchmarks.{name}")


def run(*command: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    found = run("-m", "benchmarks.stages_setup", str(folder), json.dumps(ppo.SETTINGS | SMALL))
    assert all(found[f"floor_{task}"] > 0 for task in stages.TASKS)
    return folder


@pytest.mark.parametrize("task", stages.TASKS)
def test_both_sides_do_the_same_work(task, prepared, capsys):
    ours = run("-m", "benchmarks.stages_ours", task, str(prepared))
    theirs = run("benchmarks/stages_trl.py", task, str(prepared))
    assert ours["samples"] == theirs["samples"] == SMALL["samples"]
    if task == "predict":
        assert ours["tokens_per_update"] == theirs["tokens_per_update"] == SMALL["samples"] * SMALL["new_tokens"]
    else:
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01)
        assert ours["positions"] > 0 and theirs["positions"] > 0
    stages.show(task, {"ours": [ours], "peer": [theirs]}, 1e-3, None if task == "predict" else 100)
    assert capsys.readouterr().out.startswith(task)


def test_scaling(monkeypatch, capsys):
    monkeypatch.setattr(scaling, "START", scaling.START | SMALL)
    monkeypatch.setattr(scaling, "STEPS", {"length": [{"repeat": 1}, {"repeat": 2}]})
    monkeypatch.setattr(sys, "argv", ["scaling"])
    scaling.main()
    head, one, two = capsys.readouterr().out.splitlines()
    assert "CPU s" in head and one.split()[0] == two.split()[0] == "length"
    assert int(one.split()[2]) < int(two.split()[2])


def test_ppo(tmp_path, capsys):
    settings = ppo.SETTINGS | SMALL
    setup = run("-m", "benchmarks.ppo_setup", str(tmp_path), json.dumps(settings))
    ours = run("-m", "benchmarks.ppo_ours", str(tmp_path))
    assert ours["tokens_per_update"] == SMALL["batch_size"] * SMALL["response_length"]
    ppo.show(setup, {"ours": [ours]}, settings)
    assert "samples per CPU s" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "throughput", "decoding", "ppo"])
def test_what_the_day_with_a_gpu_needs_runs_tiny_on_a_cpu(name, tmp_path):
    """In processes of their own: they set up what a test process must not. `correctness` takes minutes: not here."""
    command = [sys.executable, "-m", f"benchmarks.gpu.{name}", "--tiny", "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    written = json.loads((tmp_path / "tiny" / f"{name}.json").read_text(encoding="utf-8"))
    assert written["cases"] and "--tiny: no result" in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0 and json.loads((tmp_path / "tiny" / f"{name}.json").read_text()) == written
