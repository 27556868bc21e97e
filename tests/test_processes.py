"""Two processes do what one does: the same samples in the same order, the same global batch, the same losses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch
import yaml
from safetensors.torch import load_file

from stages.runtime.errors import UserError
from stages.training import trainer
from stages.training.config import TrainingConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STAGES = ["sft", "rm", "ppo", "predict", "evaluate"]
SCRIPT = str(ROOT / "tests" / "several_processes.py")


def run(
    processes: int, inputs: Path, to: Path, stages: list[str] = STAGES, script: list[str] = [SCRIPT]
) -> subprocess.CompletedProcess[str]:
    to.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         *script, str(inputs), str(to), *stages],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                          "COVID_DOCTOR_WORK": str(to / "work")},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("inputs")
    tiny_run.write(top)
    return top


@pytest.fixture(scope="module")
def one(inputs, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("one") / "out"
    done = run(1, inputs, to)
    assert done.returncode == 0, done.stderr[-3000:]
    return to


@pytest.fixture(scope="module", params=["whole", "sharded"])
def two(request, tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("two")
    tiny_run.write(top / "in", fsdp=request.param == "sharded")
    done = run(2, top / "in", top / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    return top / "out"


@pytest.mark.parametrize(
    ("stage", "curve"),
    [("sft", "curve"), ("sft", "eval_curve"), ("rm", "curve"), ("rm", "eval_curve"), ("ppo", "curve")],
)
def test_the_curve_is_that_of_one_process(one, two, stage, curve):
    curves = []
    for processes, folder in ((1, one), (2, two)):
        with (folder / "log" / stage / f"{curve}.csv").open() as file:
            curves.append(list(csv.DictReader(file)))
        environment = json.loads((folder / "log" / stage / "environment.json").read_text())
        assert environment["processes"] == processes
    assert len(curves[0]) == len(curves[1]) >= (1 if (stage, curve) == ("rm", "eval_curve") else 2)
    for expected, found in zip(*curves, strict=True):
        for name in expected:
            # six digits are written; sums are taken in another order
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-5, abs=1e-5), (
                expected["step"], name,
            )  # fmt: skip


def test_the_adapters_are_those_of_one_process(one, two):
    for stage in ("sft", "rm", "ppo"):
        for file in (one / stage).glob("*.safetensors"):
            expected, found = load_file(file), load_file(two / stage / file.name)
            assert expected.keys() == found.keys()
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)  # Adam lifts a last digit to a step


def test_the_answers_are_those_of_one_process(one, two):
    for file in ("answers/sft.jsonl", "evaluation/sft.jsonl"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


@pytest.mark.parametrize("fsdp", [False, True], ids=["whole", "sharded"])
def test_shares_that_are_not_equal_change_nothing(fsdp, tmp_path):
    """Three processes for mini-batches of two: one of them goes without."""
    tiny_run.write(tmp_path / "in", fsdp=fsdp)
    params = yaml.safe_load((tmp_path / "in" / "params.yaml").read_text(encoding="utf-8"))
    params["seed"] = 2  # with others a draw lies so near a token's edge that a last digit decides: 4e-7 with 42
    params["ppo"] |= {"num_mini_batches": 4, "total_episodes": 16, "normalization_samples": 2}
    (tmp_path / "in" / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    curves = []
    for processes in (1, 3):
        done = run(processes, tmp_path / "in", tmp_path / str(processes), ["ppo"])
        assert done.returncode == 0, done.stderr[-3000:]
        with (tmp_path / str(processes) / "log" / "ppo" / "curve.csv").open() as file:
            curves.append([{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)])
    for expected, found in zip(*curves, strict=True):
        assert found == pytest.approx(expected, rel=2e-5, abs=1e-5)


NAN = """
import os, runpy, sys
from stages.rl.trainer import Trainer

scores = Trainer._scores
def with_nan(self, *arguments):
    return scores(self, *arguments) + (float("nan") if os.environ["RANK"] == "1" and self.state.update else 0.0)
Trainer._scores = with_nan
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_nan_on_one_process_stops_all_with_one_line(inputs, tmp_path):
    (tmp_path / "nan.py").write_text(NAN)
    done = run(2, inputs, tmp_path / "out", ["ppo"], script=[str(tmp_path / "nan.py"), SCRIPT])
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ppo update 2: `score` is not finite"), done.stderr[-3000:]
    assert done.stderr.count(lines[0]) >= 2  # and in the launcher's summary, whose end is what one sees


def test_a_batch_that_cannot_be_shared_out_is_told_once(inputs, tmp_path):
    params = yaml.safe_load((inputs / "params.yaml").read_text(encoding="utf-8"))
    params["sft"] |= {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 3}
    odd = tmp_path / "inputs"
    odd.mkdir()
    for path in inputs.iterdir():
        (odd / path.name).symlink_to(path)
    (odd / "params.yaml").unlink()
    (odd / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = run(2, odd, tmp_path / "out", ["sft"])
    assert done.returncode
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        "error: per_device_train_batch_size × gradient_accumulation_steps is 15, which 2 processes can't share evenly; "
        "make it a multiple of their number"
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "profiles" / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_launcher_takes_our_configuration(file):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(file))
    assert config.num_processes > 1
    assert config.mixed_precision == "no"  # model.dtype alone decides


def test_the_parameter_alone_decides_the_precision(monkeypatch):
    config = TrainingConfig(per_device_train_batch_size=3, gradient_accumulation_steps=2)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert trainer.share(config, "bfloat16") == (3, 2)
    with pytest.raises(UserError, match=r"mixed_precision bf16, but params\.yaml says model.dtype float32"):
        trainer.share(config, "float32")
