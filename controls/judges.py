"""Further reward models on a stack that is already loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.models import base_model, reward, stack


def add(model: Any, folder: Path, name: str, device: Any) -> Any:
    """Put the reward adapter in `folder` onto the `PeftModel`, frozen and not active, as `name`; returns its head."""
    model.load_adapter(str(folder), adapter_name=name, is_trainable=False, torch_device="cpu")
    return reward.load_head(folder, device)


def check(base: Path, folders: Sequence[Path]) -> base_model.Base:
    """The base; raises UserError when an adapter was trained on another one."""
    frozen_base = base_model.read(base)
    for folder in folders:
        stack.resolve(frozen_base, [folder])
    return frozen_base
