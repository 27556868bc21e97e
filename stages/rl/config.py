"""The `ppo` section of params.yaml, each parameter under the papers' name."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.models.lora import LoraConfig
from stages.runtime.params import (
    BatchSize,
    GradientNorm,
    LearningRate,
    Section,
    Steps,
    Temperature,
    Tokens,
    WarmupRatio,
)

Coefficient = Annotated[float, Field(ge=0, le=1000)]
Nats = Annotated[float, Field(gt=0, le=10**6)]


class PpoConfig(Section):
    resume_lora_training: bool = False
    """False: a new adapter on base + sft, and base + sft is the reference. True: the sft adapter itself goes on
    training, and the base is the reference (the tutorial's other mode)."""

    # the run
    total_episodes: Steps = 1280
    """Responses sampled in all; one update takes batch_size of them."""
    batch_size: BatchSize = 32
    """Responses per update, over all processes."""
    num_ppo_epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the responses of an update."""
    num_mini_batches: BatchSize = 4
    """Optimizer steps per pass."""
    tokens_per_batch: Tokens = 768
    """Tokens of one pass through the model while it scores and learns, padding included; responses of like length go
    together, and a mini-batch accumulates as many passes as it needs. The result does not depend on it. On a CPU some
    hundred are quickest, a GPU takes as many as fit its memory."""
    learning_rate: LearningRate = 1.2e-3
    """The peak learning rate of AdamW."""
    lr_scheduler_type: Literal["cosine", "constant"] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    warmup_ratio: WarmupRatio = 0.0
    """Share of the updates in which the learning rate rises from 0."""
    max_grad_norm: GradientNorm = 1.0
    """The gradient's norm is clipped to this, once per optimizer step."""

    # rollouts
    max_source_length: Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    min_response_length: Tokens = 96
    """Each update draws the limit of its responses' tokens between this and max_response_length, both included."""
    max_response_length: Tokens = 96
    """The upper end of that range: no response is longer."""
    temperature: Temperature = 0.7
    """Divides the logits when sampling, and in all log-probabilities."""
    local_rollout_forward_batch_size: BatchSize = 32
    """Responses generated side by side."""
    merge_adapters_for_rollouts: bool = True
    """Add the adapters into the weights while sampling and, in float32, while scoring: quicker, for a second copy of
    the layers with LoRA."""
    cuda_graphs: bool = False
    """On a GPU: record the pass of a sampled token once per shape and replay it; keys and values then stay in memory
    while the policy learns. Not yet run on a GPU."""
    lm_head_chunk: Tokens = 1024
    """Response tokens that go through the LM head at a time; this bounds the memory of the logits."""

    # reward
    normalize_reward: Literal["none", "center", "standardize"] = "standardize"
    """Subtract the reward model's mean score on SFT answers; `standardize` also divides by their standard deviation."""
    normalization_samples: Annotated[int, Field(ge=2, le=2**20)] = 256
    """SFT answers that are sampled and scored before the first update for that mean and deviation."""
    reward_clip: Annotated[float, Field(ge=0.01, le=10**6)] | None = 5.0
    """Scores are clipped to ± this after normalisation; null leaves them."""
    missing_eos_penalty: Coefficient = 1.0
    """Subtracted from the score of a response that did not end by itself; 0 is faithful to the tutorial."""
    whiten_rewards: bool = False
    """Divide the token rewards by their standard deviation, the mean kept."""

    # KL against the reference
    kl_coef: Coefficient = 0.05
    """The first KL coefficient, and the only one while kl_target is null."""
    kl_target: Nats | None = 3.0
    """Mean KL per response (nats) that the adaptive coefficient steers to; null keeps it fixed."""
    kl_horizon: Annotated[float, Field(ge=1, le=10**9)] = 500
    """Episodes over which the coefficient adapts: within a run it can change by a factor of at most
    exp(0.2 · total_episodes / kl_horizon)."""
    early_stop_kl: Nats | None = None
    """End the run when the mean KL per response passes this; null never does."""

    # losses
    cliprange: Annotated[float, Field(gt=0, le=100)] = 0.2
    """The ratio of new to old probability is clipped to 1 ± this."""
    cliprange_value: Annotated[float, Field(gt=0, le=10**6)] = 0.2
    """A value moves by at most this from the old one, or its loss is clipped."""
    vf_coef: Coefficient = 0.1
    """Weight of the value loss."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount factor γ of later rewards."""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ of generalised advantage estimation: 0 trusts the values, 1 the returns. The score comes with the last token:
    at 0.95 the first of 20 tokens is credited with 38 % of what the values did not foresee of it."""
    value_head_init: Literal["reward", "zero"] = "zero"
    """Start the value head from the reward model's head, or from zero. The reward head reads states that the reward
    adapter has changed, the value head reads the policy's: on the default data zero explained more from the start."""

    # checkpoints
    save_steps: Steps = 5
    """Updates between two checkpoints to resume from."""
    lora: LoraConfig = LoraConfig(r=8, alpha=32, dropout=0.0)
    """The adapter. Its dropout must be 0: the first ratio would not be 1 otherwise."""

    @model_validator(mode="after")
    def _fits(self) -> "PpoConfig":
        if self.max_response_length < self.min_response_length:
            raise ValueError("max_response_length must be at least min_response_length")
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of num_mini_batches ({self.num_mini_batches})"
            )
        if self.total_episodes < self.batch_size:
            raise ValueError(f"total_episodes ({self.total_episodes}) is less than one batch ({self.batch_size})")
        if self.kl_target and self.kl_horizon <= 0.2 * self.batch_size:
            raise ValueError(
                f"kl_horizon ({self.kl_horizon:g}) must be more than a fifth of batch_size ({self.batch_size}), or one "
                "update could make the KL coefficient negative"
            )
        if self.lora.dropout:
            raise ValueError("lora.dropout must be 0: with dropout the first ratio is not 1")
        return self

    @property
    def updates(self) -> int:
        return self.total_episodes // self.batch_size
