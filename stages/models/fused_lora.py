"""LoRA's linear layers with two passes over their output instead of six.

PEFT computes y = xWᵀ + s·((xAᵀ)Bᵀ) as separate steps, so that the update is written, scaled and added, and its gradient
scaled and added again. Here the update is added up inside the matrix product that makes it, forward and backward.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def fuse(model: Any) -> Any:
    """The model, whose plain LoRA layers compute this way from now on; quantized ones stay PEFT's."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = FusedLinear
    return model


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's layer, which goes on doing what is not the plain case: dropout, autocast, mixed precision, shards."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs or not self._plain(x):
            found: Tensor = super().forward(x, *args, **kwargs)
            return found
        matrices = []
        for name in self._names():
            matrices += [self.lora_A[name].weight, self.lora_B[name].weight * self.scaling[name]]
        return _LinearWithUpdates.apply(x, self.base_layer.weight, self.base_layer.bias, *matrices)

    def _names(self) -> list[str]:
        return [name for name in self.active_adapters if name in self.lora_A]

    def _plain(self, x: Tensor) -> bool:
        weight = self.base_layer.weight
        return (
            x.dtype == weight.dtype
            and not weight.requires_grad
            and not isinstance(weight, DTensor)
            and not torch.is_autocast_enabled(x.device.type)
            and all(
                self.lora_A[name].weight.dtype == x.dtype
                and self.lora_B[name].bias is None
                and name not in self.lora_variant
                and not (self.training and getattr(self.lora_dropout[name], "p", 0.0))
                for name in self._names()
            )
        )


class _LinearWithUpdates(torch.autograd.Function):
    """x [..., n], frozen weight [m, n] and bias [m], then each adapter's down [r, n] and up [m, r] → [..., m].

    One adapter after the other, so that a new one, whose `up` is 0, changes no bit.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *matrices: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        result = nn.functional.linear(rows, weight, bias)
        lows = []
        for down, up in zip(matrices[::2], matrices[1::2], strict=True):
            lows.append(rows @ down.T)
            result.addmm_(lows[-1], up.T)
        ctx.save_for_backward(rows, weight, *matrices, *lows)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, *saved = ctx.saved_tensors
        adapters = len(saved) // 3
        matrices, lows = saved[: 2 * adapters], saved[2 * adapters :]
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        by_x = gradient @ weight if ctx.needs_input_grad[0] else None
        by_matrices: list[Tensor | None] = []
        for n, low in enumerate(lows):
            down, up = matrices[2 * n : 2 * n + 2]
            by_low = gradient @ up
            if by_x is not None:
                by_x.addmm_(by_low, down)
            by_down, by_up = ctx.needs_input_grad[3 + 2 * n : 5 + 2 * n]
            by_matrices += [by_low.T @ rows if by_down else None, gradient.T @ low if by_up else None]
        shaped = None if by_x is None else by_x.view(*gradients[0].shape[:-1], -1)
        return shaped, None, None, *by_matrices
