"""Adapters on one frozen base: folder ↔ module, and which of them are active.

`base + sft + ppo` with both adapters active is the function of a new adapter on the merged SFT model, without a
merged copy. Each adapter records what it was trained on top of, and a stack that does not fit is refused before any
weight is read.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.models.base_model import Base
from stages.runtime import atomic
from stages.runtime.errors import UserError
from stages.runtime.resume import hash_path
from stages.text import json_files

LINEAGE = "lineage.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Lineage:
    """What an adapter is and what it was trained on top of."""

    adapter: str
    sha256: str
    base: str
    below: dict[str, str]
    """The adapters that were active below it, lowest first, with their hashes."""
    files: dict[str, str]
    """What else of its folder decides what it does, with the hashes: its configuration, and a head if it has one."""


def save(model: Any, adapter: str, name: str, base: Base, below: Sequence[Path], to: Path) -> None:
    """Write the weights, config and lineage of `adapter` (as the module calls it) into the folder `to`, as `name`.

    The lineage covers what is in the folder already: write a head before.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    active = model.peft_config[adapter]
    weights = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    weights = {name: tensor.contiguous().cpu() for name, tensor in weights.items() if ".lora_" in name}
    save_file(weights, to / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": active.r,
        "lora_alpha": active.lora_alpha,
        "lora_dropout": active.lora_dropout,
        "target_modules": sorted(active.target_modules),
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    atomic.write_json(to / CONFIG, config)
    record = Lineage(
        adapter=name,
        sha256=hash_path(to / WEIGHTS),
        base=base.identity,
        below={(r := lineage(folder)).adapter: r.sha256 for folder in below},
        files={file.name: hash_path(file) for file in sorted(to.iterdir()) if file.name != WEIGHTS},
    )
    atomic.write_json(to / LINEAGE, record.__dict__)


def lineage(folder: Path) -> Lineage:
    """Raises UserError when the folder holds no adapter of this project."""
    path = folder / LINEAGE
    try:
        found = Lineage(**json_files.read_object(path))
    except (TypeError, UserError) as error:
        raise UserError(f"{path}: not the lineage of an adapter ({error}); fetch it, or train it again") from None
    texts = [found.adapter, found.sha256, found.base]
    for hashes in (found.below, found.files):
        texts += [*hashes, *hashes.values()] if isinstance(hashes, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not found.adapter or "." in found.adapter:
        raise UserError(f"{path}: not the lineage of an adapter; fetch it, or train it again")
    return found


def resolve(base: Base, folders: Sequence[Path], top: str | None = None) -> list[Path]:
    """The folders of the stack whose top is the last of `folders`, lowest first, as the top adapter recorded them.

    A folder that the top adapter was not trained on is left out (PPO in `resume_lora_training` mode is
    trained on the base alone).

    Args:
        top: the name of the adapter that the last folder has to hold; any if None.

    Raises:
        UserError: an adapter was trained on another base, or on another version of an adapter below it; the last is
            another adapter than `top`; a file is missing, or not the one that its lineage describes.
    """
    if not folders:
        return []
    records = {folder: lineage(folder) for folder in folders}
    highest = records[folders[-1]]
    if top is not None and highest.adapter != top:
        raise UserError(f"{folders[-1]} holds the adapter `{highest.adapter}`, and `{top}` is needed; name its folder")
    for folder, record in records.items():
        if record.base != base.identity:
            raise UserError(
                f"{folder} was trained on base {_short(record.base)}, but {base.folder} is {_short(base.identity)}; "
                "run `dvc repro` to train it on this base"
            )
        for file, sha256 in {WEIGHTS: record.sha256, **record.files}.items():
            if not (folder / file).is_file() or hash_path(folder / file) != sha256:
                raise UserError(
                    f"{folder}/{file} is not the file that its {LINEAGE} describes; fetch it, or train it again"
                )
    stack = []
    for name, sha256 in highest.below.items():
        match = [(folder, record) for folder, record in records.items() if record.adapter == name]
        if not match:
            raise UserError(f"{folders[-1]} was trained on top of adapter `{name}`, which was not given")
        folder, record = match[0]
        if record.sha256 != sha256:
            raise UserError(
                f"{folders[-1]} was trained on `{name}` {sha256[:12]}, but {folder} is {record.sha256[:12]}; "
                "run `dvc repro` to bring them together"
            )
        stack.append(folder)
    return [*stack, folders[-1]]


def load(model: Any, folders: Sequence[Path]) -> Any:
    """Put the adapters onto the model, all frozen, all active; with no folder, the model itself.

    Args:
        model: what `Base.causal_lm` gave, or a stack to add to. The files are read on the CPU: PEFT by itself would have
            every process bring them to the first GPU.
        folders: as `resolve` gave them.
    """
    from peft import PeftModel

    from stages.models import fused_lora

    for folder in folders:
        name = lineage(folder).adapter
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name, is_trainable=False, torch_device="cpu")
        else:
            model = PeftModel.from_pretrained(
                model, str(folder), adapter_name=name, is_trainable=False, torch_device="cpu"
            )
    if folders:
        activate(model, [lineage(folder).adapter for folder in folders])
    return fused_lora.fuse(model).eval()


def activate(model: Any, adapters: Sequence[str], trainable: str | None = None) -> None:
    """Make exactly these adapters active, and exactly `trainable` of them (or none) require gradients.

    PEFT turns gradients on for what it activates and off for the rest, and has changed its mind about when; so the
    set is stated here, at each switch, and not assumed.
    """
    model.base_model.set_adapter(list(adapters), inference_mode=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable is not None and ".lora_" in name and f".{trainable}." in name)


@contextmanager
def active(model: Any, adapters: Sequence[str]) -> Iterator[None]:
    """Within the block these adapters are active, without gradients; with none given, the bare base."""
    before = list(model.base_model.active_adapters)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if adapters:
        model.base_model.set_adapter(list(adapters), inference_mode=True)
    else:
        model.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        if not adapters:
            model.base_model.enable_adapter_layers()
        model.base_model.set_adapter(before, inference_mode=True)
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def merged(model: Any, only_if: bool = True) -> Iterator[None]:
    """Within the block the active adapters are added into the weights, so that generation runs plain layers.

    Afterwards the weights are restored bit for bit from a copy: subtracting would leave rounding errors.
    Costs a second copy of the layers that carry LoRA. Quantized and sharded layers are left as they are, and so is a
    model without adapters.
    """
    import torch
    from peft.tuners.lora import Linear
    from torch.distributed.tensor import DTensor

    from stages.models.fused_lora import FusedLinear

    layers = [
        module
        for module in model.modules()
        if only_if
        and type(module) in (Linear, FusedLinear)
        and not module.disable_adapters
        and not isinstance(module.base_layer.weight, DTensor)
    ]
    saved = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight = layer.base_layer.weight
                delta = sum(
                    (layer.get_delta_weight(name) for name in layer.active_adapters if name in layer.lora_A),
                    start=torch.zeros((), dtype=weight.dtype, device=weight.device),
                )
                saved.append((layer, weight.detach().clone()))
                # In place: a recorded pass reads the weights where they are. LoRA is float32: one rounding.
                weight.copy_(weight + delta)
                layer.merged_adapters.extend(layer.active_adapters)
        yield
    finally:
        for layer, weight in saved:
            layer.base_layer.weight.data.copy_(weight)
            layer.merged_adapters.clear()


def merges_exactly(model: Any) -> bool:
    """Whether merged weights compute what the adapters beside them do, to rounding: half precision rounds them first."""
    import torch

    return bool(model.dtype == torch.float32)


def _short(identity: str) -> str:
    return identity if len(identity) <= 48 else identity[:45] + "…"
