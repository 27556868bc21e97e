"""A base that is sharded over processes: each holds its part alone, and a run goes on where it was."""

import csv
from pathlib import Path

import pytest
import tiny_run
import torch
from safetensors.torch import load_file
from test_processes import SCRIPT, run

from stages.models import base_model

pytestmark = pytest.mark.slow

SHARE = """
import os, sys
from pathlib import Path

import torch

from stages.models import base_model
from stages.runtime import processes

inputs, to, *_ = map(Path, sys.argv[1:])
device, found = processes.join().device, {}
for here in (4, 2):
    os.environ["LOCAL_WORLD_SIZE"] = str(here)  # with 2, as if the others were on another machine
    model = base_model.read(inputs / "base").causal_lm(device)
    held = {n: p.to_local().numel() if hasattr(p, "to_local") else p.numel() for n, p in model.named_parameters()}
    meshes = {tuple(p.device_mesh.shape) for p in model.parameters() if hasattr(p, "device_mesh")}
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    logits = model(input_ids=torch.arange(12)[None]).logits
    logits.logsumexp(-1).sum().backward()
    found[here] = {"held": held, "meshes": meshes, "logits": logits, "gradient": embeddings.grad}
torch.save(found, to / f"{os.environ['RANK']}.pt")
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("inputs")
    tiny_run.write(top, fsdp=True)
    return top


def test_a_machine_holds_all_layers_and_each_of_its_processes_a_part(inputs, tmp_path):
    (tmp_path / "share.py").write_text(SHARE)
    done = run(4, inputs, tmp_path / "out", [], [str(tmp_path / "share.py")])
    assert done.returncode == 0, done.stderr[-3000:]
    model = base_model.read(inputs / "base").causal_lm()
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    logits = model(input_ids=torch.arange(12)[None]).logits
    logits.logsumexp(-1).sum().backward()
    whole = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert len([name for name in whole if ".layers." in name]) > 20
    found = [torch.load(tmp_path / "out" / f"{rank}.pt") for rank in range(4)]
    for here, mesh in ((4, (4,)), (2, (2, 2))):
        parts = [each[here] for each in found]
        for part in parts:
            assert part["meshes"] == {mesh}
            torch.testing.assert_close((part["logits"], part["gradient"]), (logits, embeddings.grad))
        for name, count in whole.items():
            held = [part["held"][name] for part in parts]
            if ".layers." in name:
                assert sum(held[:here]) == sum(held[-here:]) == count > max(held)
            else:
                assert held == [count] * 4


# Every process leaves in the middle, without a word.
STOP = """
import os, runpy, sys
from pathlib import Path

from transformers import Trainer

from stages.rl.trainer import Trainer as Ppo

def leave_at(cls, method, count):
    original = getattr(cls, method)
    def counted(self, *arguments, **more):
        counted.calls += 1
        if counted.calls > count:
            os._exit(3)
        return original(self, *arguments, **more)
    counted.calls = 0
    setattr(cls, method, counted)

leave_at(Trainer, "training_step", 5)
leave_at(Ppo, "step", 2)
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("straight")
    done = run(2, inputs, to, ["sft", "ppo"])
    assert done.returncode == 0, done.stderr[-3000:]
    return to


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_run_goes_on_where_it_was(stage, inputs, straight, tmp_path):
    (tmp_path / "stop.py").write_text(STOP)
    stopped = run(2, inputs, tmp_path / "out", [stage], [str(tmp_path / "stop.py"), SCRIPT])
    assert stopped.returncode and not (tmp_path / "out" / stage).exists()
    resumed = run(2, inputs, tmp_path / "out", [stage])
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert f"{stage}: found the state of an unfinished run" in resumed.stderr
    assert (tmp_path / "out" / "log" / stage / "curve.csv").read_bytes() == (
        straight / "log" / stage / "curve.csv"
    ).read_bytes()
    for file in (straight / stage).glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "out" / stage / file.name).read_bytes()


def test_bfloat16_with_checkpointing(tmp_path):
    losses = []
    for processes in (1, 2):
        top = tmp_path / str(processes)
        tiny_run.write(top / "in", fsdp=True, dtype="bfloat16", gradient_checkpointing=True)
        done = run(processes, top / "in", top / "out", ["sft", "rm", "ppo"])
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append([loss(top / "out" / "log" / stage / "curve.csv") for stage in ("sft", "rm")])
        for file in (top / "out").glob("*/*.safetensors"):
            assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}
    for one, two in zip(*losses, strict=True):
        assert two == pytest.approx(one, rel=0.01)


def loss(file: Path) -> list[float]:
    with file.open() as rows:
        return [float(row["loss"]) for row in csv.DictReader(rows)]
