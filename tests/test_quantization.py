"""A base in 8 or 4 bits (QLoRA): every stage runs, what trains stays float32, and an export has full precision."""

import json
from pathlib import Path

import pytest
import tiny_run
import torch
from safetensors.torch import load_file

from stages.generation.decoding import PLAIN
from stages.models import base_model, stack
from stages.runtime.errors import UserError
from stages.serving import merged_model

torch.set_num_threads(1)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*(bitsandbytes|kernels|quantiz|MatMul8bitLt)")]


def need_bitsandbytes() -> None:
    pytest.importorskip("bitsandbytes", reason="an optional extra: pip install '.[quantization]'")


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    tiny_run.write(tmp_path, quantization="4bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"model.quantization: 4bit needs bitsandbytes: `.venv/bin/pip install '\.\[qu"):
        base_model.read(tmp_path / "base").causal_lm()


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_every_stage(bits, tmp_path, monkeypatch):
    need_bitsandbytes()
    from test_precision import run

    seen = run(tmp_path, monkeypatch, quantization=bits)
    for stage, found in seen.items():
        assert {torch.uint8 if bits == "4bit" else torch.int8} < found["base"], stage
        assert found["adapters"] == found["trained"] == found["moments"] == {torch.float32}, stage
    for stage in ("sft", "rm", "ppo"):
        recorded = json.loads((tmp_path / "out" / "log" / stage / "environment.json").read_text())
        assert recorded["packages"]["bitsandbytes"]
    for file in (tmp_path / "out").glob("*/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}, file


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    stack.activate(model, ["sft"], trainable="sft")
    ids = torch.tensor([[5, 60, 9, 200, 31, 4]])
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_gradients_in_4_bits_are_those_of_the_same_weights_written_out(tmp_path):
    """After an evaluation too: bitsandbytes has a format for that on CPUs, without gradients."""
    need_bitsandbytes()
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    tiny_run.write(tmp_path, quantization="4bit")
    small = base_model.read(tmp_path / "base").causal_lm()
    weights = {
        name: dequantize_4bit(module.weight.data, module.weight.quant_state)
        for name, module in small.named_modules() if isinstance(module, Linear4bit)
    }  # fmt: skip
    assert len(weights) == 14
    small = stack.load(small, [tmp_path / "sft"])
    with torch.no_grad():
        small(input_ids=torch.tensor([[5, 60, 9]]))

    tiny_run.write(tmp_path)
    plain = base_model.read(tmp_path / "base").causal_lm()
    for name, weight in weights.items():
        plain.get_submodule(name).weight.data = weight.to(torch.float32)
    plain = stack.load(plain, [tmp_path / "sft"])
    found, expected = gradients(small), gradients(plain)
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_export_has_full_precision(tmp_path):
    need_bitsandbytes()
    decoding = PLAIN.replace(do_sample=False)
    weights = []
    for quantization in ("none", "4bit"):
        tiny_run.write(tmp_path, quantization=quantization)
        to: Path = tmp_path / quantization
        to.mkdir()
        merged_model.write(base_model.read(tmp_path / "base"), [tmp_path / "sft"], decoding, 8, to)
        weights.append((to / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
