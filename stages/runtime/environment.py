"""What besides commit, data and parameters decides a result's bytes: CPU, versions, threads, device, processes."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stages.runtime import atomic, processes, threads

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes")
FILE = "environment.json"


def write(folder: Path) -> None:
    """Record the environment of this process in `folder`, beside the curve of what was trained in it."""
    atomic.write_json(folder / FILE, describe())


def describe() -> dict[str, Any]:
    import torch

    device = "cpu" if processes.on_cpu() else f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    launcher = os.environ.get("COVID_DOCTOR_LAUNCH") if "WORLD_SIZE" in os.environ else None
    return {
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # which of torch's kernels ran
        "device": device,
        "threads": threads.most(),
        "processes": processes.count(),
        **({"launcher": launcher} if launcher else {}),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The model's name, e.g. `AMD EPYC 7763 64-Core Processor`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
