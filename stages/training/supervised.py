"""The parameters of a Trainer run, which base, sft and rm share."""

from dataclasses import dataclass
from typing import Literal

from stages.runtime import params


@dataclass(frozen=True)
class Optimization:
    """The config of a Trainer run; a stage's section adds its own to them."""

    num_train_epochs: float
    per_device_train_batch_size: int
    """Samples in one forward pass."""
    gradient_accumulation_steps: int
    """Forward passes per optimizer step on ONE process. Several processes share them out: the global batch,
    per_device_train_batch_size × gradient_accumulation_steps, stays what it is."""
    learning_rate: float
    lr_scheduler_type: Literal["cosine", "linear", "constant"]
    warmup_ratio: float
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float
    max_grad_norm: float
    logging_steps: int
    """Optimizer steps between two rows of the curve."""
    eval_steps: int
    """Optimizer steps between two evaluations; each also saves a checkpoint to resume from."""

    def __post_init__(self) -> None:
        params.above_zero(self, "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
                          "learning_rate", "max_grad_norm", "logging_steps", "eval_steps")  # fmt: skip
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError("warmup_ratio must lie in [0, 1)")
        if self.eval_steps % self.logging_steps:
            # A checkpoint between two rows would lose the part of the running mean that it can't hold.
            raise ValueError(f"eval_steps {self.eval_steps} is no multiple of logging_steps {self.logging_steps}")

    @property
    def batch_size(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps
