"""What is wrong with the model, and where it does not fit the parameters; a model on the hub is not looked at."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.models import base_model, tiny
from stages.runtime.errors import UserError

CONTEXT = ("max_position_embeddings", "seq_length", "max_sequence_length", "n_positions")
"""What a model's config.json calls the longest sequence that it reads, in tokens."""
ANSWERS = (
    ("sft", "max_target_length"),
    ("rm", "max_target_length"),
    ("ppo", "max_response_length"),
    ("predict", "max_new_tokens"),
    ("evaluate", "max_target_length"),
)
"""The sections that limit an answer, and by which key; `max_source_length` limits its prompt."""


def problems(sections: dict[str, Any]) -> Iterator[str]:
    """A line for each: of the model by itself, of the layers that get LoRA, of the lengths."""
    for finder in (model_problems, layer_problems, length_problems):
        try:
            yield from finder(sections)
        except UserError as error:
            yield str(error)
            return  # a model that can't be read has no layers and no lengths


def model_problems(sections: dict[str, Any]) -> Iterator[str]:
    model = sections["model"]
    base_model.check_name(model)
    if model.name == base_model.TINY and (model.dtype != "float32" or model.quantization != "none"):
        yield "model.name: `tiny` is trained in float32: set model.dtype to float32 and model.quantization to none"
    if model.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        yield f"model.quantization: {model.quantization} needs bitsandbytes: `.venv/bin/pip install '.[quantization]'`"
    if is_local(model):
        base_model.Base(Path(), model, "", {}).check()


def layer_problems(sections: dict[str, Any]) -> Iterator[str]:
    """Layers that LoRA is to be put on and that the model lacks."""
    listed = [stage for stage in ("sft", "rm", "ppo") if sections[stage].lora.target_modules != "all-linear"]
    model = sections["model"]
    if not listed or not (model.name == base_model.TINY or is_local(model)):
        return
    import torch

    with torch.device("meta"):  # no weights
        if model.name == base_model.TINY:
            architecture = sections["base"].architecture
            network = tiny.network(architecture, tiny.tokenizer([], architecture))
        else:
            network = base_model.Base(Path(), model, "", {}).skeleton()
    for stage in listed:
        try:
            sections[stage].lora.fit(network, stage)
        except UserError as error:
            yield str(error)


def length_problems(sections: dict[str, Any]) -> Iterator[str]:
    """Prompts with answers that are longer than the model can read."""
    context = context_of(sections)
    if context is None:
        return
    for stage, answer in ANSWERS:
        total = sections[stage].max_source_length + getattr(sections[stage], answer)
        if total > context:
            yield (
                f"{stage}.max_source_length + {stage}.{answer} is {total}, and the model reads at most {context} "
                "tokens: lower them"
            )


def context_of(sections: dict[str, Any]) -> int | None:
    """The longest sequence that the model reads, in tokens; None where its files do not say, or are not here."""
    model = sections["model"]
    if model.name == base_model.TINY:
        return int(sections["base"].architecture.max_position_embeddings)
    path = base_model.local_folder(model.name) / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    return next((config[name] for name in CONTEXT if isinstance(config.get(name), int)), None)


def weights(model: Any) -> int:
    """Bytes of a local folder's weights; 0 for a model that is not here."""
    return sum(file.stat().st_size for file in base_model.local_folder(model.name).glob("*.safetensors"))


def is_local(model: Any) -> bool:
    return bool(model.name != base_model.TINY and base_model.local_folder(model.name).is_dir())
