"""The small reference model of chatglm_fixture, its special ids, and how closely numbers must agree with it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.models import chatglm

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "chatglm_fixture"
PAD, MASK, GMASK, SOP, EOP = 3, 500, 501, 504, 505
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}

chatglm.register()


def load(folder: Path = FIXTURE / "model", **arguments: Any) -> Any:
    """The causal language model of a folder, in eval mode."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **arguments).eval()


def lora_model(cases: dict[str, Tensor], adapter: str = "default") -> Any:
    """The reference model under the LoRA adapter of the reference cases."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=16, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    model = get_peft_model(load(), config, adapter_name=adapter)
    for index, layer in enumerate(model.get_decoder().layers):
        qkv = layer.attention.query_key_value
        qkv.lora_A[adapter].weight.data = cases[f"lora.layers.{index}.A"].clone()
        qkv.lora_B[adapter].weight.data = cases[f"lora.layers.{index}.B"].clone()
    return model.eval()


def mask_of(ids: Tensor) -> Tensor:
    return (ids != PAD).long()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected.float(), **TOLERANCE)
