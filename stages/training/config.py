"""The parameters of a Trainer run, which base, sft and rm share."""

from typing import Literal

from pydantic import model_validator

from stages.runtime import params


class TrainingConfig(params.Section):
    """The parameters of a Trainer run; a stage's section adds its own."""

    num_train_epochs: params.Epochs = 3
    """Passes over the data; a fraction takes that share of it."""
    per_device_train_batch_size: params.BatchSize = 16
    """Samples in one forward pass."""
    gradient_accumulation_steps: params.BatchSize = 1
    """Forward passes per optimizer step on ONE process. Several processes divide them: the global batch,
    per_device_train_batch_size × gradient_accumulation_steps, stays what it is."""
    learning_rate: params.LearningRate = 1.0e-4
    """The peak learning rate of AdamW."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    warmup_ratio: params.WarmupRatio = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: params.WeightDecay = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: params.GradientNorm = 1.0
    """The gradient's norm is clipped to this, once per optimizer step."""
    logging_steps: params.Steps = 10
    """Optimizer steps between two rows of the curve."""
    eval_steps: params.Steps = 50
    """Optimizer steps between two evaluations; each also saves a checkpoint to resume from."""

    @model_validator(mode="after")
    def _steps_fit(self) -> "TrainingConfig":
        if self.batch_size > 2**16:
            raise ValueError(
                "per_device_train_batch_size × gradient_accumulation_steps is "
                f"{self.batch_size}, and must be at most {2**16}"
            )
        if self.eval_steps % self.logging_steps:
            # A checkpoint between two rows would lose the part of the running mean that it can't hold.
            raise ValueError(f"eval_steps {self.eval_steps} is not a multiple of logging_steps {self.logging_steps}")
        return self

    @property
    def batch_size(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps
