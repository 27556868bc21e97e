"""The base in its named precision; what trains, and each head, in float32: in memory, in the optimizer, on disk."""

import csv
import json
import os
import types
from pathlib import Path

import pytest
import tiny_run
import torch
from safetensors.torch import load_file

from stages.models import base_model, forward, reward, stack
from stages.rl.trainer import Trainer
from stages.runtime.errors import UserError
from stages.training import trainer

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
CASES = [
    ("float32", "eager", False), ("float32", "sdpa", True),
    ("bfloat16", "sdpa", False), ("bfloat16", "eager", True),
    ("float16", "sdpa", True),
]  # fmt: skip
each_case = pytest.mark.parametrize(("dtype", "attention", "checkpointing"), CASES)


def run(top: Path, monkeypatch: pytest.MonkeyPatch, **model: object) -> dict[str, dict[str, set[torch.dtype]]]:
    """All stages, below `top`; the data types that were seen in memory when each trained, per kind of tensor."""
    seen = {}
    train, optimize = trainer.train, Trainer.optimize

    def watched_train(run, *arguments):
        train(run, *arguments)
        stage = "rm" if hasattr(run.model.get_base_model(), "score") else "sft"
        seen[stage] = kinds(run.model, run.optimizer.optimizer)

    def watched_optimize(self, *arguments):
        row = optimize(self, *arguments)
        seen["ppo"] = kinds(self.model, self.optimizer)
        return row

    monkeypatch.setattr(trainer, "train", watched_train)
    monkeypatch.setattr(Trainer, "optimize", watched_optimize)
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(top / "work"))
    tiny_run.write(top, **model)
    for stage in (tiny_run.run_sft, tiny_run.run_rm, tiny_run.run_ppo, tiny_run.run_predict, tiny_run.run_evaluate):
        stage(top, top / "out")
    return seen


def kinds(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, set[torch.dtype]]:
    found = {"adapters": set(), "base": set(), "head": set()}
    for name, parameter in model.named_parameters():
        found["adapters" if ".lora_" in name else "head" if ".score." in name else "base"].add(parameter.dtype)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    found["trained"] = {p.dtype for p in trained} | {p.grad.dtype for p in trained if p.grad is not None}
    found["moments"] = {t.dtype for state in optimizer.state.values() for t in state.values()}
    return found


def column(file: Path, name: str) -> list[float]:
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows)]


def mean_reward(folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "evaluation" / "sft.jsonl").read_text().splitlines()]
    return sum(row["reward"] for row in rows) / len(rows)


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(top := tmp_path_factory.mktemp("float32"), monkeypatch)
    return top / "out"


@each_case
def test_every_stage(dtype, attention, checkpointing, in_float32, tmp_path, monkeypatch):
    named = {"dtype": dtype, "attn_implementation": attention, "gradient_checkpointing": checkpointing}
    seen = run(tmp_path, monkeypatch, **named)
    out = tmp_path / "out"

    assert set(seen) == {"sft", "rm", "ppo"}
    for stage, found in seen.items():
        assert found["base"] == {getattr(torch, dtype)}, stage
        assert found["adapters"] == found["trained"] == found["moments"] == {torch.float32}, stage
    assert seen["rm"]["head"] == {torch.float32}
    files = [*out.glob("*/*.safetensors")]
    assert len(files) == 5
    for file in files:
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}, file

    near = 1e-4 if dtype == "float32" else 0.02
    for stage in ("sft", "rm"):
        for file, name in (("curve.csv", "loss"), ("eval_curve.csv", "eval_loss")):
            found, expected = (column(folder / "log" / stage / file, name) for folder in (out, in_float32))
            assert found == pytest.approx(expected, near), file
    # the answers differ in half precision, and with them their rewards
    rewards, expected = (mean_reward(folder) for folder in (out, in_float32))
    assert rewards == pytest.approx(expected, abs=near * 10)


def test_logits_of_half_precision_are_not_rounded_to_it():
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 50, bias=True, dtype=torch.bfloat16)
    states = torch.randn(3, 7, 64, dtype=torch.bfloat16) * 5
    exact = states.double() @ head.weight.double().T + head.bias.double()
    with torch.no_grad():
        found = forward.logits(head, states)
        assert found.dtype == torch.float32 and (found - exact).abs().max() < 1e-4 < (head(states) - exact).abs().max()
        assert torch.equal(forward.logits(head.float(), states.float()), head.float()(states.float()))


def test_strictly_deterministic_kernels_run_every_stage_to_the_same_bytes(tmp_path, monkeypatch):
    """On a CPU, where the order is fixed anyway: no operation of a stage may be refused, and none may say otherwise."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        for name, deterministic in (("free", False), ("fixed", True)):
            run(tmp_path / name, monkeypatch, deterministic=deterministic)
            assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
    outs = [tmp_path / name / "out" for name in ("free", "fixed")]
    for file in [p for p in outs[0].rglob("*.*") if p.suffix in (".safetensors", ".jsonl", ".csv")]:
        assert (outs[1] / file.relative_to(outs[0])).read_bytes() == file.read_bytes(), file


@pytest.fixture
def policy(tmp_path):
    """What PPO trains, before its trainer: makes it anew, with or without checkpointing."""
    tiny_run.write(tmp_path)
    origin = base_model.read(tmp_path / "base")

    def make(checkpointing: bool):
        model = stack.load(origin.causal_lm(), [tmp_path / "sft", tmp_path / "rm"])
        stack.activate(model, ["sft"], trainable="sft")
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        return model

    return make


IDS = torch.tensor([[5, 60, 9, 200, 31, 4]])


def test_checkpointing_gives_the_same_gradients(policy):
    gradients = []
    for checkpointing in (False, True):
        model = policy(checkpointing).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        calls = []
        layer = model.get_base_model().model.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        assert len(calls) == 1 + checkpointing
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(g.abs().max() > 0 for g in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)


def test_generation_keeps_its_cache_under_checkpointing(policy):
    model = policy(True).eval()
    widths = []
    model.get_base_model().model.layers[0].register_forward_hook(lambda m, args, out: widths.append(args[0].shape[1]))
    model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, min_new_tokens=5)
    assert widths == [6, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reward_head_computes_in_float32_under_autocast(dtype, tmp_path):
    tiny_run.write(tmp_path, dtype=dtype)
    model = reward.in_float32(base_model.read(tmp_path / "base").reward_model())
    states = []
    model.score.register_forward_hook(lambda m, args, out: states.append(args[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    assert logits.dtype == torch.float32
    assert torch.equal(logits[0], model.score.weight @ states[0][0, -1].float())


class Optimizer:
    """Like accelerate's, after a step that float16's loss scale made overflow."""

    step_was_skipped = True

    def __init__(self, scale: float):
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.scaler.scale(torch.ones(()))  # the first use sets the scale


def test_an_overflow_of_the_loss_scale_is_no_nan(tmp_path):
    (stop,) = (each for each in trainer.callbacks(tmp_path) if type(each).__name__ == "StopAtNaN")
    state = types.SimpleNamespace(global_step=3, log_history=[{"loss": 1.0, "grad_norm": float("inf")}])
    logs = {"loss": 1.0, "grad_norm": float("inf")}
    stop.on_log(None, state, None, logs, optimizer=Optimizer(512.0))
    assert logs == {"loss": 1.0} == state.log_history[-1]
    refused = [
        ({"grad_norm": float("nan")}, Optimizer(0.5)), ({"grad_norm": float("inf")}, None),
        ({"loss": float("nan")}, Optimizer(512.0)),
    ]  # fmt: skip
    for logs, optimizer in refused:
        with pytest.raises(UserError, match=r"step 3: .* is (nan|inf)\. The checkpoint before it is kept"):
            stop.on_log(None, state, None, logs, optimizer=optimizer)
