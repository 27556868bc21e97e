"""What only a GPU can show, on tiny models: `python -m benchmarks.gpu.correctness` runs these and nothing else.

Without a GPU the same lines run on the CPU, so that none breaks unnoticed. The last test is left out there, unless
COVID_DOCTOR_GPU_TESTS=all asks for it: tests/test_resume.py and tests/test_precision.py show the same.
"""

import csv
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import test_graphs
import tiny_models
import tiny_run
import torch
from chatglm_fixture.tiny import build_tiny_chatglm

from stages.generation import graphs, sampling
from stages.generation.decoding import PLAIN
from stages.generation.generate import generate
from stages.models import base_model, chatglm, forward, stack
from stages.models.chatglm.modeling import ChatGLMForCausalLM
from stages.rl import logprobs
from stages.runtime import processes

ROOT = Path(__file__).parents[1]
ON_CPU = not torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.slow]
DTYPES = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.03}
"""And how far log-probabilities of the same tokens may lie apart."""
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(scope="module")
def device():
    return processes.device()


@pytest.fixture(autouse=True)
def plain_calls(monkeypatch):
    """On a CPU there are no graphs: calls take their place."""
    if ON_CPU:
        monkeypatch.setattr(graphs, "usable", lambda model, ids: True)
        monkeypatch.setattr(graphs, "record", lambda run: test_graphs.recorded(run, []))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def glm_folder(tmp_path_factory):
    chatglm.register()
    return build_tiny_chatglm(tmp_path_factory.mktemp("chatglm") / "tiny")


def qwen(folders, device, dtype="float32"):
    origin = base_model.read(folders.base)
    origin = replace(origin, model=origin.model.replace(dtype=dtype))
    return stack.load(origin.causal_lm(device), [folders.sft])


def glm(folder, device, dtype="float32"):
    return ChatGLMForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()


def answers(model, with_graphs=False, **changes):
    asked = test_graphs.prompts(model, 11)
    keys = [f"key {n}" for n in range(len(asked))]
    ends = list(range(40, 60))
    found = generate(model, asked, keys, PLAIN.replace(**changes), 40, 8, ends, 0, True, with_graphs)
    return asked, dict(found)


def test_the_gpu_is_named_and_used(device, capsys):
    processes.announce("sft")
    said = capsys.readouterr().err
    assert ON_CPU or (device.type == "cuda" and torch.cuda.get_device_name() in said and "CUDA" in said)


@pytest.mark.parametrize("family", ["qwen", "chatglm"])
def test_greedy_ids_are_the_cpus(family, folders, glm_folder, device):
    make, source = (qwen, folders) if family == "qwen" else (glm, glm_folder)
    here, there = (answers(make(source, where), do_sample=False)[1] for where in (device, "cpu"))
    assert {row: answer.ids for row, answer in here.items()} == {row: answer.ids for row, answer in there.items()}


@pytest.mark.parametrize("family", ["qwen", "chatglm"])
@each_dtype
def test_recorded_passes_are_the_plain_ones(family, dtype, folders, glm_folder, device):
    """Token for token in float32. In half precision each of them stands by the trainer's log-probabilities."""
    model = qwen(folders, device, dtype) if family == "qwen" else glm(glm_folder, device, dtype)
    for with_graphs in (False, True):
        asked, found = answers(model, with_graphs)
        if dtype == "float32":
            expected = answers(model)[1]
            assert {row: answer.ids for row, answer in found.items()} == {
                row: answer.ids for row, answer in expected.items()
            }
        rows = sorted(found)
        batch = forward.to_batch(asked, [found[row].ids for row in rows], 0, device)
        with torch.no_grad():
            trainer = logprobs.response_log_probs(model, batch, 1.0, 64).log_probs.cpu()
        for row in rows:
            sampler = torch.tensor(found[row].log_probs)
            assert (trainer[row, : len(sampler)] - sampler).abs().max() < DTYPES[dtype]


def test_graphs_hold_while_adapters_come_and_go(folders, device):
    model = qwen(folders, device)
    for _ in range(2):
        with stack.merged(model):
            test_graphs.same(answers(model, True)[1], answers(model)[1])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-1.0)  # as training would
        test_graphs.same(answers(model, True)[1], answers(model)[1])


@each_dtype
def test_a_stack_is_the_merged_model(dtype, folders, device):
    model = qwen(folders, device, dtype)
    ids = torch.tensor([[5, 60, 9, 200, 31, 4]], device=device)
    with torch.no_grad():
        stacked = model(input_ids=ids).logits.float()
        with stack.merged(model):
            merged = model(input_ids=ids).logits.float()
    atol = (1e-3 if dtype == "float32" else 0.1) * float(stacked.abs().max())
    torch.testing.assert_close(merged, stacked, atol=atol, rtol=0)


@each_dtype
def test_logits_are_added_up_in_float32(dtype, device):
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(64, 50, bias=False)
    head.weight.data = torch.randn(50, 64, generator=generator)
    head = head.to(device, getattr(torch, dtype))
    states = torch.randn(3, 7, 64, generator=generator).to(device, getattr(torch, dtype))
    with torch.no_grad():
        found = forward.logits(head, states)
    exact = states.double() @ head.weight.double().T
    assert found.dtype == torch.float32 and found.shape == (3, 7, 50)
    assert (found - exact).abs().max() < (1e-4 if dtype != "float32" else 0.05)  # TF32 may be on


@pytest.mark.parametrize(
    "changes", [{}, {"top_p": 0.7}, {"top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2}], ids=str
)
def test_tokens_are_drawn_as_on_the_cpu(changes, device):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(64, 1500, generator=generator) * 3
    uniforms = torch.rand(64, generator=generator, dtype=torch.float64)
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    seen[:, ::7] = True
    decoding = PLAIN.replace(**changes)
    there = sampling.next_tokens(logits, uniforms, seen if "repetition_penalty" in changes else None, decoding)
    seen = seen.to(device) if "repetition_penalty" in changes else None
    here = sampling.next_tokens(logits.to(device), uniforms.to(device), seen, decoding)
    assert (here.cpu() == there).float().mean() > 0.98  # a number on the border may fall to either side


@each_dtype
def test_ppo_starts_from_ratio_1(dtype, work, tmp_path):
    """A first ratio that is not 1 ends the run; the later ones stay near."""
    tiny_run.write(tmp_path, dtype=dtype)
    tiny_run.run_ppo(tmp_path, tmp_path / "out")
    with (tmp_path / "out" / "log" / "ppo" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(math.isfinite(float(cell)) for row in rows for cell in row.values() if cell)
    assert ("sampler_kl" in rows[0]) == (dtype != "float32")


RUN = """
import os, sys
from pathlib import Path
import tiny_run
from stages.rl.trainer import Trainer as Ppo
from transformers import Trainer

def leave_at(cls, method, count):
    original = getattr(cls, method)
    def counted(self, *arguments, **more):
        counted.calls += 1
        if counted.calls > count:
            os._exit(3)
        return original(self, *arguments, **more)
    counted.calls = 0
    setattr(cls, method, counted)

top, to, stage, stops = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["stop"]
if stops:
    leave_at(Trainer, "training_step", 10)
    leave_at(Ppo, "step", 2)
getattr(tiny_run, f"run_{stage}")(top, to)
"""


@pytest.mark.skipif(ON_CPU and os.environ.get("COVID_DOCTOR_GPU_TESTS") != "all", reason="six processes, for a GPU")
@pytest.mark.parametrize(("stage", "dtype"), [("sft", "bfloat16"), ("ppo", "float32")])
def test_the_same_bytes_twice_and_after_a_kill(stage, dtype, tmp_path):
    """With strictly deterministic kernels."""
    tiny_run.write(tmp_path, deterministic=True, dtype=dtype)

    def run(name: str, *more: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path), str(tmp_path / name), stage, *more],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                              "COVID_DOCTOR_WORK": str(tmp_path / f"{name}.work")},
            cwd=ROOT, timeout=300,
        ).returncode  # fmt: skip

    assert run("straight") == 0
    assert run("killed", "stop") == 3
    assert run("killed") == 0
    for file in [
        *(tmp_path / "straight" / stage).glob("*.safetensors"),
        *(tmp_path / "straight/log" / stage).glob("*.csv"),
    ]:
        assert (tmp_path / "killed" / file.relative_to(tmp_path / "straight")).read_bytes() == file.read_bytes(), file
