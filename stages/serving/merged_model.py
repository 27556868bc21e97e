"""A stack → one folder that plain transformers loads: merged weights, tokenizer, template and decoding settings."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.generation.decoding import Decoding
from stages.generation.generate import eos_ids
from stages.models import stack
from stages.models.base_model import Base
from stages.text import encoding


def write(base: Base, folders: Sequence[Path], decoding: Decoding, max_new_tokens: int, to: Path) -> None:
    """Fill the empty folder `to` with the model.

    A base that is trained on in 8 or 4 bits is merged in its full precision: there is no adding to quantized weights
    without rounding all of them anew.

    Args:
        folders: the adapters, as `stack.resolve` gave them.
    """
    base = replace(base, model=base.model.replace(quantization="none"))
    tokenizer = base.tokenizer()
    model = stack.load(base.causal_lm(), folders)
    with stack.merged(model):  # the weights that `predict` measured, bit for bit
        plain = model.unload() if folders else model
        plain.generation_config = generation_config(decoding, max_new_tokens, eos_ids(plain, tokenizer), tokenizer)
        plain.save_pretrained(to)
    pin_chat_template(tokenizer)
    tokenizer.save_pretrained(to)
    for file in to.glob("*.safetensors"):  # safetensors lets only the owner read it, and a server may be another user
        shutil.copymode(to / "config.json", file)


def generation_config(decoding: Decoding, max_new_tokens: int, eos: Sequence[int], tokenizer: Any) -> Any:
    """The `predict` section as a file that transformers and vLLM read: the model answers as it was measured."""
    from transformers import GenerationConfig

    sampling = {"temperature": decoding.temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
    return GenerationConfig(
        do_sample=decoding.do_sample,
        **(sampling if decoding.do_sample else {}),
        repetition_penalty=decoding.repetition_penalty,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(eos),
        pad_token_id=tokenizer.pad_token_id,
    )


def pin_chat_template(tokenizer: Any) -> None:
    """Make the tokenizer's own template write what `encoding` wrote in training, whoever calls it."""
    if getattr(tokenizer, "renders_messages_safely", False):  # a native tokenizer, its format is in its code
        return
    template = tokenizer.chat_template or encoding.PLAIN_TEMPLATE
    if "enable_thinking" in template:
        template = "{%- set enable_thinking = false %}" + template
    tokenizer.chat_template = template
