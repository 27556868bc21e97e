"""What several processes settle among themselves, and the device that each finds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stages.models import base_model
from stages.runtime import checkpoints, processes, resume
from stages.runtime.errors import UserError
from stages.training import trainer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A driver's device file, and a torch that can't use what is behind it."""
    file = tmp_path / "nvidiactl"
    file.touch()
    monkeypatch.setattr(processes, "NVIDIA", file)
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return file


def test_a_driver_too_old_is_an_error_and_not_a_day_on_the_cpu(gpu, monkeypatch):
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old\n(found version 11040).")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(UserError) as error:
        processes.announce("sft")
    assert "built for CUDA 13.0, can't use it: The NVIDIA driver on your system is too old" in str(error.value)
    assert "set CUDA_VISIBLE_DEVICES=''" in str(error.value)


def test_a_torch_without_cuda_where_a_gpu_stands_is_one_too(gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="was built without CUDA; install the build that requirements"):
        processes.announce("sft")


@pytest.mark.parametrize("variable", [("CUDA_VISIBLE_DEVICES", ""), ("ACCELERATE_USE_CPU", "true")])
def test_who_wants_the_cpu_gets_it_and_is_told(variable, gpu, monkeypatch, capsys):
    monkeypatch.setenv(*variable)
    processes.announce("sft")
    assert capsys.readouterr().err.startswith("sft: runs on the CPU, ")


def test_without_a_gpu_there_is_nothing_to_explain(gpu, capsys):
    gpu.unlink()
    processes.announce("sft")
    assert capsys.readouterr().err.startswith("sft: runs on the CPU, ")


def test_a_gpu_without_bfloat16_units_is_refused_for_it(tiny_folders, monkeypatch):
    """It would be emulated, many times slower: torch counts that too unless it is asked not to."""
    monkeypatch.setattr(processes, "on_cpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    base = base_model.read(tiny_folders.base)
    base = replace(base, model=base.model.replace(dtype="bfloat16"))
    with pytest.raises(UserError, match="bfloat16, which Tesla T4 lacks: set it to float16 or float32"):
        base.causal_lm()


def test_a_checkpoint_is_sealed_once_every_process_has_written_its_part(monkeypatch, tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7/rng_state_0.pth").write_bytes(b"the first's")

    def wait():
        (tmp_path / "checkpoint-7/rng_state_1.pth").write_bytes(b"the second's")

    monkeypatch.setattr(processes, "wait_for_all", wait)
    state = SimpleNamespace(is_world_process_zero=True, global_step=7)
    for callback in trainer.callbacks(tmp_path):
        callback.on_save(None, state, None)
    assert set(json.loads((tmp_path / "checkpoint-7" / checkpoints.SEAL).read_text())) == {
        "rng_state_0.pth", "rng_state_1.pth",
    }  # fmt: skip


def test_several_processes_are_named_once(gpu, monkeypatch, capsys):
    gpu.unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.announce("sft")
    monkeypatch.setenv("RANK", "1")
    processes.announce("sft")
    assert capsys.readouterr().err.count("2 processes") == 1


def test_rows_are_dealt(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    dealt = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        dealt.append((processes.share([5, 4, 3, 2]), processes.share([5, 4, 3, 2], evenly=True)))
    assert dealt == [([5, 2], [5, 2]), ([4], [4, 5]), ([3], [3, 5])]


AGREE = """
import os, sys, time
from pathlib import Path
from stages.runtime import processes, resume
from stages.runtime.errors import UserError

def ask():
    assert processes.is_first()
    return Path("chosen")

def refuse():
    raise UserError("not so")

assert processes.from_first(ask) == Path("chosen")
assert processes.everyones(os.environ["RANK"]) == ["0", "1"]
try:
    processes.from_first(refuse)
    raise AssertionError
except UserError as error:
    assert str(error) == "not so"
resume.SEEN_AFTER = 1
if sys.argv[2] == "apart":
    os.environ["COVID_DOCTOR_WORK"] += os.environ["RANK"]
    # as on two machines: the same path, another disk
    choose = processes.from_first
    processes.from_first = lambda ask: Path(str(choose(ask)).replace("work0", "work" + os.environ["RANK"]))
    (Path(os.environ["COVID_DOCTOR_WORK"])).mkdir()
try:
    with resume.folder("sft", 1, [Path(sys.argv[1])]) as folder:
        (folder / os.environ["RANK"]).touch()
        processes.wait_for_all()
        found = sorted(path.name for path in folder.iterdir())
        assert found == ["0", "1"], found
        if not processes.is_first():  # it is slow, and still reads its best weights
            time.sleep(1)
            assert folder.exists()
    assert not folder.exists() or not processes.is_first()
except UserError as error:
    print("refused:", error)
processes.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("disks", ["shared", "apart"])
def test_two_processes_agree_on_answers_errors_and_the_work_folder(disks, tmp_path):
    (tmp_path / "agree.py").write_text(AGREE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(tmp_path / "agree.py"), str(tmp_path / "data"), disks],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COVID_DOCTOR_WORK": str(tmp_path / "work")},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("refused:") == (2 if disks == "apart" else 0)
    if disks == "apart":
        assert "all machines must share the work folder; set COVID_DOCTOR_WORK to one on a shared file" in done.stdout
    else:
        assert list((tmp_path / "work" / "sft").iterdir()) == []


def test_a_model_folder_that_git_ignores_is_found_from_a_temporary_experiment(tiny_folders, tmp_path, monkeypatch):
    """`models/chatglm-6b` is not in the copy of the checkout that DVC makes for `--temp` and the queue."""
    checkout, copy = tmp_path / "checkout", tmp_path / "checkout/.dvc/tmp/exps/standalone/tmp1a2b"
    copy.mkdir(parents=True)
    (checkout / "models").mkdir()
    (checkout / "models" / "large").symlink_to(tiny_folders.base)
    monkeypatch.setattr(resume, "ROOT", copy)
    monkeypatch.chdir(copy)
    config = base_model.ModelConfig(name="models/large")
    base_model.write_pointer(copy, config)
    base = base_model.read(copy)
    assert base.tokenizer().eos_token_id is not None and base.causal_lm().num_parameters() > 0
    assert json.loads((copy / "base.json").read_text())["model"]["name"] == "models/large"  # no machine's path
    (copy / "models" / "large").mkdir(parents=True)
    assert base_model.local_folder("models/large") == Path("models/large")  # its own, where it has one
    assert base_model.local_folder("owner/name") == Path("owner/name")
