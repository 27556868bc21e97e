"""Two processes do what one does: the same samples in the same order, the same global batch, the same losses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

ROOT = Path(__file__).parents[1]
STAGES = ["sft", "rm", "ppo", "predict"]


def run(processes: int, inputs: Path, to: Path, stages: list[str] = STAGES) -> subprocess.CompletedProcess[str]:
    to.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         str(ROOT / "tests" / "several_processes.py"), str(inputs), str(to), *stages],
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
                          "COVID_DOCTOR_WORK": str(to / "work")},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("inputs")
    tiny_run.write(top)
    return top


@pytest.fixture(scope="module")
def runs(inputs, tmp_path_factory) -> dict[int, Path]:
    top = tmp_path_factory.mktemp("processes")
    for processes in (1, 2):
        done = run(processes, inputs, top / str(processes))
        assert done.returncode == 0, done.stderr[-3000:]
    return {processes: top / str(processes) for processes in (1, 2)}


@pytest.mark.parametrize("curve", ["sft", "sft_eval", "rm", "rm_eval", "ppo"])
def test_the_curve_is_that_of_one_process(runs, curve):
    curves = {}
    for processes, folder in runs.items():
        with (folder / f"{curve}.csv").open() as file:
            curves[processes] = list(csv.DictReader(file))
        lineage = json.loads((folder / curve.removesuffix("_eval") / "lineage.json").read_text())
        assert lineage["environment"]["processes"] == processes
    assert len(curves[1]) == len(curves[2]) >= (1 if curve == "rm_eval" else 2)
    for one, two in zip(curves[1], curves[2], strict=True):
        for name in one:
            # six digits are written; sums are taken in another order
            assert float(two[name]) == pytest.approx(float(one[name]), rel=2e-5, abs=1e-5), (one["step"], name)


def test_the_answers_are_those_of_one_process(runs):
    for file in ("predictions/sft.jsonl", "predict.json"):
        assert (runs[1] / file).read_bytes() == (runs[2] / file).read_bytes()
