"""The rows of PPO's curve: what an update says about its rollouts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.rl import maths
from stages.rl.experience import Experience
from stages.rl.rollouts import Rollouts

CURVE = (
    "step", "episodes", "score", "score_std", "reward", "kl", "kl_k3", "kl_coef", "entropy", "policy_loss",
    "value_loss", "loss", "clip_fraction", "approx_kl", "ratio", "grad_norm", "learning_rate", "eos_rate",
    "response_length", "repetition", "length_score_correlation", "explained_variance", "sampler_kl",
)  # fmt: skip
"""One row per update. score: the reward model's mean, raw. reward: mean per response after normalisation, penalty and
KL. kl: mean k1 per response, kl_k3: its k3 twin. entropy, ratio, approx_kl: means per token. response_length: tokens.
sampler_kl: k1 per response of the sampler to the trainer, where they round differently (in half precision).
"""


def log_stats(rollouts: Rollouts, experience: Experience, kl_coef: float) -> dict[str, float]:
    """The columns of the curve that are known before the update learns."""
    mask = experience.mask
    columns = {
        "score": experience.scores,
        "reward": experience.rewards.sum(1),
        "kl": experience.kl.sum(1),
        "kl_k3": (maths.k3(-experience.kl) * mask).sum(1),
        "entropy": experience.entropy.sum(1),
        "response_length": mask.sum(1),
        "eos_rate": rollouts.ended,
        "repetition": torch.tensor([repetition(r) for r in rollouts.responses], device=mask.device),
    }
    if rollouts.sampler_log_probs is not None:
        columns["sampler_kl"] = ((rollouts.sampler_log_probs - experience.log_probs) * mask).sum(1)
    rows = torch.stack(list(columns.values()), dim=1).double()
    means = dict(zip(columns, rows.mean(0).tolist(), strict=True))
    by_name = dict(zip(columns, rows.unbind(1), strict=True))
    _, unexplained = maths.moments(experience.returns - experience.values, mask)
    _, total = maths.moments(experience.returns, mask)
    return means | {
        "score_std": float(by_name["score"].std(correction=0)),
        "kl_coef": kl_coef,
        "entropy": float(by_name["entropy"].sum() / by_name["response_length"].sum()),
        "length_score_correlation": correlation(by_name["response_length"], by_name["score"]),
        "explained_variance": 1 - float(unexplained / total) if float(total) else 0.0,
    }


def repetition(ids: Sequence[int], order: int = 4) -> float:
    """Share of a response's n-grams of tokens that occurred before in it: 0 for none, near 1 for a loop."""
    grams = [tuple(ids[i : i + order]) for i in range(len(ids) - order + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of two vectors [B]; 0 when one of them does not vary."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm > 0 else 0.0
