"""The reward model's loss: Bradley and Terry's, with a term that centres the scores."""

from typing import Any

from stages.training import weighted

MEASURED = ("accuracy", "margin")
"""Logged beside the loss of a pair."""


def reward_loss(center_rewards_coefficient: float) -> weighted.Measure:
    """Gives [b, 4] for b pairs: 1, the loss, whether the chosen answer scores higher, and by how much."""

    def measure(model: Any, batch: dict[str, Any]) -> Any:
        import torch

        from stages.preference import batches

        chosen, rejected = batches.scores(model, batch).unbind(1)
        margin = chosen - rejected
        loss = -torch.nn.functional.logsigmoid(margin) + center_rewards_coefficient * (chosen + rejected) ** 2
        return torch.stack([torch.ones_like(loss), loss, (margin > 0).to(loss.dtype), margin], dim=1)

    return measure
