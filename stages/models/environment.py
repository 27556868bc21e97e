"""What besides commit and data decides a result's bytes: versions, threads, device, precision, processes."""

import os
import platform
from importlib.metadata import version
from typing import Any

from stages.runtime import processes
from stages.models.base_model import ModelConfig

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers")


def describe(model: ModelConfig) -> dict[str, Any]:
    """Versions, thread count, device, number of processes and how the base `model` was loaded in this run."""
    import torch

    device = "cpu" if processes.on_cpu() else f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **({} if model.quantization == "none" else {"bitsandbytes": version("bitsandbytes")}),
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        "quantization": model.quantization,
        "gradient_checkpointing": model.gradient_checkpointing,
    }
