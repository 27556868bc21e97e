"""PPO as the run trains it, while a second reward model, which it never sees, judges the answers of every update.

Gao, Schulman and Hilton 2022 (arXiv 2210.10760): where the reward that is optimised goes on rising and the second one
does not, the policy exploits its reward model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls import judges
from stages.models import reward, stack
from stages.rl.experience import Experience
from stages.rl.rollouts import Rollouts
from stages.rl.trainer import Trainer


class WatchedTrainer(Trainer):
    """Adds the column `gold` to the curve: the second reward model's mean over the update's answers, before it learns.

    Args:
        gold: folder of the second reward model.
        arguments: of `Trainer`.
    """

    def __init__(self, gold: Path, **arguments: Any):
        device = arguments["accelerator"].device
        self.gold_head = judges.add(arguments["model"], gold, "gold", device)
        self.gold = 0.0
        super().__init__(**arguments)

    def make_experience(self, rollouts: Rollouts) -> Experience:
        plan = self._plan(rollouts, range(len(rollouts.prompts)))
        with stack.active(self.model, ["gold"]):
            scores = reward.score(
                self.model, self.gold_head, rollouts.prompts, rollouts.responses, self.pad,
                self.config.tokens_per_batch, plan,
            )  # fmt: skip
        everyones = self.group.sum(torch.tensor(scores, device=self.device))
        self._check_finite(gold=everyones)
        self.gold = float(everyones.double().mean())
        return super().make_experience(rollouts)

    def step(self) -> dict[str, float]:
        row = super().step()
        self.state.rows[-1]["gold"] = self.gold
        return row | {"gold": self.gold}


class CharacterTrainer(WatchedTrainer):
    """Rewards nothing but characters (Singhal et al. 2023, arXiv 2310.03716)."""

    def __init__(self, tokenizer: Any, **arguments: Any):
        self.tokenizer = tokenizer
        super().__init__(**arguments)

    def _scores(self, rollouts: Rollouts, plan: list[list[int]]) -> Tensor:
        return torch.tensor(characters(self.tokenizer, rollouts.responses), device=self.device)


def characters(tokenizer: Any, responses: Sequence[Sequence[int]]) -> list[float]:
    """The length of each response as text."""
    return [float(len(tokenizer.decode(ids, skip_special_tokens=True).strip())) for ids in responses]
