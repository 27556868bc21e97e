"""Sums and checks over the tensors of all processes. Every process must make the same calls."""

from typing import Any

import torch
from torch import Tensor

from stages.runtime.errors import UserError


class Collectives:
    """Args: accelerator: an `accelerate.Accelerator`."""

    def __init__(self, accelerator: Any):
        self.accelerator = accelerator

    def sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def check_finite(self, update: int, **tensors: Tensor) -> None:
        """Raises UserError on all processes when a tensor of one of them is not finite; the first gives its name."""
        for name, tensor in tensors.items():
            if self.sum(tensor.isfinite().logical_not().sum()).item():
                raise UserError(
                    f"ppo update {update}: `{name}` is not finite. The last checkpoint is kept; lower "
                    "ppo.learning_rate, or use bfloat16 or float32 instead of float16"
                )
