"""This process among those that a launcher started: on GPUs as accelerate finds them, else on the CPU.

The launcher's variables are read here and nowhere else; unlike accelerate they answer at once.
"""

import os
from typing import Any


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def on_cpu() -> bool:
    """Whether to tell accelerate to use the CPU; untold, it takes several processes without a GPU for one each.

    Of GPUs only those of CUDA (and ROCm) count: Apple's has no float64, in which tokens are drawn and losses added up.
    """
    import torch
    from accelerate.utils import parse_flag_from_env  # `accelerate launch` sets it to `False`

    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()


def device() -> Any:
    """This process's `torch.device`; joins the other processes."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu()).device


def join() -> Any:
    """The `accelerate.Accelerator`: knows the device and the other processes."""
    from accelerate import Accelerator

    return Accelerator(cpu=on_cpu())
