"""The `ppo` section of params.yaml, each knob under the papers' name."""

from dataclasses import dataclass
from typing import Literal

from stages.models.lora import LoraConfig


@dataclass(frozen=True)
class PpoConfig:
    resume_lora_training: bool
    """False: a new adapter on base + sft, and base + sft is the reference. True: the sft adapter itself goes on
    training, and the base is the reference (the tutorial's other mode)."""

    # the run
    total_episodes: int
    """Responses sampled in all; one update takes batch_size of them."""
    batch_size: int
    """Responses per update, over all processes."""
    num_ppo_epochs: int
    """Passes over the responses of an update."""
    num_mini_batches: int
    """Optimizer steps per pass."""
    per_device_train_batch_size: int
    """Responses in one forward and backward pass; a mini-batch accumulates as many passes as it needs."""
    learning_rate: float
    lr_scheduler_type: Literal["cosine", "constant"]
    warmup_ratio: float
    """Share of the updates in which the learning rate rises from 0."""
    max_grad_norm: float
    """The gradient's norm is clipped to this, once per optimizer step."""

    # rollouts
    max_source_length: int
    """Tokens of history and question; the oldest rounds go first, the question survives."""
    min_response_length: int
    """Each update draws the limit of its responses' tokens between this and max_response_length, both included."""
    max_response_length: int
    temperature: float
    """Divides the logits when sampling, and in all log-probabilities."""
    local_rollout_forward_batch_size: int
    """Responses that are generated side by side; also the rows of a scoring pass."""
    merge_adapters_for_rollouts: bool
    """Add the adapters into the weights while sampling: quicker, for a second copy of the layers with LoRA."""
    lm_head_chunk: int
    """Response tokens that go through the LM head at a time: bounds the memory of the logits."""

    # reward
    normalize_reward: Literal["none", "center", "standardize"]
    """Subtract the reward model's mean score on SFT answers (the first update's); `standardize` also divides by
    their standard deviation."""
    reward_clip: float | None
    """Scores are clipped to ± this after normalisation; null leaves them."""
    missing_eos_penalty: float
    """Subtracted from the score of a response that did not end by itself; 0 is faithful to the tutorial."""
    whiten_rewards: bool
    """Divide the token rewards by their standard deviation, the mean kept."""

    # KL against the reference
    kl_coef: float
    """The first KL coefficient, and the only one while kl_target is null."""
    kl_target: float | None
    """Mean KL per response (nats) that the adaptive coefficient steers to; null keeps it fixed."""
    kl_horizon: float
    """Episodes over which the coefficient adapts."""
    early_stop_kl: float | None
    """End the run when the mean KL per response passes this; null never does."""

    # losses
    cliprange: float
    cliprange_value: float
    vf_coef: float
    """Weight of the value loss."""
    gamma: float
    lam: float
    value_head_init: Literal["reward", "zero"]
    """Start the value head from the reward model's head, or from zero. The reward head reads states that the reward
    adapter has changed, the value head reads the policy's: on the default data zero explained more from the start."""

    # keeping
    save_steps: int
    """Updates between two checkpoints to resume from."""
    lora: LoraConfig
    """dropout must be 0: the first ratio would not be 1 otherwise."""

    def __post_init__(self) -> None:
        for name in (
            "total_episodes",
            "batch_size",
            "num_ppo_epochs",
            "num_mini_batches",
            "per_device_train_batch_size",
            "learning_rate",
            "max_grad_norm",
            "min_response_length",
            "temperature",
            "kl_horizon",
            "cliprange",
            "local_rollout_forward_batch_size",
            "lm_head_chunk",
            "cliprange_value",
            "save_steps",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError("warmup_ratio must lie in [0, 1)")
        if self.max_response_length < self.min_response_length:
            raise ValueError("max_response_length must be at least min_response_length")
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of num_mini_batches ({self.num_mini_batches})"
            )
        if self.total_episodes < self.batch_size:
            raise ValueError(f"total_episodes ({self.total_episodes}) is less than one batch ({self.batch_size})")
        if self.kl_target is not None and self.kl_target <= 0:
            raise ValueError("kl_target must be above 0, or null for a fixed coefficient")
        if self.lora.dropout:
            raise ValueError("lora.dropout must be 0: with dropout the first ratio is not 1")

    @property
    def updates(self) -> int:
        return self.total_episodes // self.batch_size
