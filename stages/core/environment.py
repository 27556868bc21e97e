"""What besides commit and data decides a result's bytes: versions, threads, device, precision, processes."""

import platform
from importlib.metadata import version
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers")


def describe(dtype: str) -> dict[str, Any]:
    """Versions, thread count, device, precision and number of processes of this run."""
    import os

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "dtype": dtype,
    }
