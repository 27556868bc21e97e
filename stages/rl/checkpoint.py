"""What a PPO run is between two updates: memory ↔ a checkpoint's files.

Parameters, Adam's moments and generators in safetensors, all else in JSON, whose floats survive to the bit.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


@dataclass
class State:
    """All that changes from update to update, apart from tensors."""

    update: int = 0
    kl_coef: float = 0.0
    reward_mean: float = 0.0
    reward_scale: float = 1.0
    warned: bool = False
    stopped_early: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)


def save(folder: Path, state: State, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Write the files of a checkpoint into `folder`."""
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
    moments = {
        f"{name}/{key}": tensor.detach().cpu().contiguous()
        for name, parameter in trained.items()
        for key, tensor in optimizer.state[parameter].items()
    }
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    save_file(weights, folder / "trained.safetensors")
    if moments:  # none before the first step, when a run stops early at once
        save_file(moments, folder / "optimizer.safetensors")
    save_file(generators, folder / "generators.safetensors")
    (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")


def load(folder: Path, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> State:
    """Bring parameters, moments and generators back, each to the device it is on; returns the rest."""
    weights = load_file(folder / "trained.safetensors")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    if (folder / "optimizer.safetensors").exists():
        moments = load_file(folder / "optimizer.safetensors")
        for name, parameter in trained.items():
            optimizer.state[parameter] = {
                key: moments[f"{name}/{key}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }
    generators = load_file(folder / "generators.safetensors")
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    return State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
