"""Every benchmark runs: in its smallest form, so that none breaks unnoticed when the stages change."""

import importlib
import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from parameters import ROOT

from benchmarks import ppo, scaling, stages

pytestmark = pytest.mark.slow

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
    "peer_predict_batch_size": 2,
    "new_tokens": 4,
    "updates": 2,
    "micro_batch_size": 1,
    "tokens_per_batch": 200,
}
steps = scaling.steps
PEERS = {"ppo_trl", "stages_trl", "stages_llamafactory"}
"""They import what stands beside them: run as files, by the interpreter of a peer's environment."""


@pytest.mark.parametrize(
    "name", sorted(f.stem for f in (ROOT / "benchmarks").glob("*.py") if f.stem not in PEERS | {"__init__"})
)
def test_every_file_imports(name):
    importlib.import_module(f"benchmarks.{name}")


def run(module: str, *words: str) -> dict[str, float]:
    """What the module's last line says. In this process: each of its own would import torch anew."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", [module, *words])
        patch.delitem(sys.modules, module, raising=False)
        patch.chdir(ROOT)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return json.loads(printed.getvalue().splitlines()[-1])


def lines_of(code: str, *words: str) -> list[str]:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    found = run("benchmarks.stages_setup", str(folder), json.dumps(ppo.SETTINGS | SMALL))
    assert all(found[f"floor_{task}"] > 0 for task in stages.TASKS)
    return folder


TRL = """
import sys
from pathlib import Path

sys.path.insert(0, "benchmarks")  # it is run as a file there
import stages_trl

folder, *tasks = sys.argv[1:]
for task in tasks:
    stages_trl.main(task, Path(folder))
"""


@pytest.fixture(scope="module")
def theirs(prepared) -> dict[str, dict[str, float]]:
    """By task what TRL's side reports."""
    lines = [line for line in lines_of(TRL, str(prepared), *stages.TASKS) if line.startswith('{"seconds"')]
    return dict(zip(stages.TASKS, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("task", stages.TASKS)
def test_both_sides_do_the_same_work(task, prepared, theirs, capsys):
    ours, peer = run("benchmarks.stages_ours", task, str(prepared)), theirs[task]
    assert ours["samples"] == peer["samples"] == SMALL["samples"]
    if task == "predict":
        assert ours["tokens_per_update"] == peer["tokens_per_update"] == SMALL["samples"] * SMALL["new_tokens"]
    else:
        assert ours["loss"] == pytest.approx(peer["loss"], rel=0.01)
        assert ours["positions"] > 0 and peer["positions"] > 0
    stages.show(task, {"ours": [ours], "peer": [peer]}, 1e-3, None if task == "predict" else [100, 100])
    assert capsys.readouterr().out.startswith(task)


@pytest.mark.parametrize("task", ["sft", "ppo"])
def test_scaling(task, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "STAGES", scaling.STAGES | SMALL)
    monkeypatch.setattr(scaling, "PPO", scaling.PPO | SMALL)
    monkeypatch.setattr(scaling, "steps", lambda task: {"length": steps(task)["length"][:2]})
    monkeypatch.setattr(scaling, "result", lambda command: run(*command[2:]))
    monkeypatch.setattr(sys, "argv", ["scaling", "--task", task])
    scaling.main()
    head, one, two = capsys.readouterr().out.splitlines()
    assert "CPU s" in head and one.split()[0] == two.split()[0] == "length"
    assert int(one.split()[2]) < int(two.split()[2])


def test_ppo(tmp_path, capsys):
    settings = ppo.SETTINGS | SMALL
    setup = run("benchmarks.ppo_setup", str(tmp_path), json.dumps(settings))
    ours = run("benchmarks.ppo_ours", str(tmp_path))
    assert ours["tokens_per_update"] == SMALL["batch_size"] * SMALL["response_length"]
    ppo.show(setup, {"ours": [ours]}, settings)
    assert "samples per CPU s" in capsys.readouterr().out


GPU_DAY = ("ppo", "throughput", "decoding", "pipeline")
DAY = """
import importlib, sys
from pathlib import Path

to, *names = sys.argv[1:]
scripts = [importlib.import_module(f"benchmarks.gpu.{name}") for name in names]
found = []
for _ in range(2):
    for script in scripts:
        script.main(["--tiny", "--to", to])
    found.append({file: file.read_bytes() for file in Path(to).glob("tiny/*.json")})
assert found[0] == found[1], "what was measured is not measured again"
"""


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    """All scripts in one process, and not in this one: they set up what a test process must not."""
    folder = tmp_path_factory.mktemp("day")
    assert sum("--tiny: no result" in line for line in lines_of(DAY, str(folder), *GPU_DAY)) == 2 * len(GPU_DAY)
    return folder / "tiny"


@pytest.mark.slow
@pytest.mark.parametrize("name", GPU_DAY)
def test_what_the_day_with_a_gpu_needs_runs_tiny_on_a_cpu(name, day):
    assert json.loads((day / f"{name}.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.slow
def test_a_line_for_each_test_that_needs_a_gpu(tmp_path):
    """Of one of them: all run with the tests, in tests/test_gpu.py."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.correctness", "--tiny", "--to", str(tmp_path)],
        env=os.environ | {"PYTEST_ADDOPTS": "-k logits_are_added_up"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    cases = json.loads((tmp_path / "tiny" / "correctness.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 3 and {case["result"] for case in cases.values()} == {"passed"}
    assert "{'passed': 3}" in done.stdout
