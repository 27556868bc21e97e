"""The parameters of the reward model, whose budget the DPO control shares."""

from typing import Annotated

from pydantic import Field

from stages.models.lora import LoraConfig
from stages.runtime import params
from stages.training.config import TrainingConfig


class RmConfig(TrainingConfig):
    num_train_epochs: params.Epochs = 1
    learning_rate: params.LearningRate = 1.0e-3
    logging_steps: params.Steps = 5
    eval_steps: params.Steps = 80
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    max_target_length: params.Tokens = 256
    """Tokens of an answer, its EOS included; a longer answer is cut at its end."""
    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight of a term that keeps scores centred on 0 (Eisenstein et al. 2023); 0 leaves it out."""
    lora: LoraConfig = LoraConfig(r=8)
    """The adapter."""
