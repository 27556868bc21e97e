"""Tensor → tensor: the formulas of PPO, pure.

B rows (responses), R response positions, mask 1 on a response's tokens (its EOS included) and 0 after it.
Sources: Schulman et al. 2017 (PPO), Schulman et al. 2016 (GAE), Ziegler et al. 2019 (KL in the reward, adaptive
coefficient), Schulman 2020 (the KL estimators k1 and k3).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """Sums over the tokens of a batch; divided by its token count they are means."""

    policy: Tensor
    value: Tensor
    clipped: Tensor
    approx_kl: Tensor
    ratio: Tensor


def log_probs_and_entropy(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of its distribution, in float32.

    Args:
        logits: [N, V].
        tokens: [N].
        temperature: divides the logits, as it did when the tokens were sampled.

    Returns:
        [N] and [N], in nats.
    """
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    return log_p.gather(-1, tokens[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def token_rewards(kl: Tensor, score: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token: −kl_coef · KL everywhere, plus the score on the response's last token.

    Args:
        kl: [B, R], log π − log π_ref of the sampled token (k1).
        score: [B].
        mask: [B, R].

    Returns:
        [B, R]; a row without tokens gets no score.
    """
    rewards = -kl_coef * kl * mask
    length = mask.sum(1).long()
    some = length > 0
    rows = torch.arange(len(score), device=score.device)[some]
    rewards[rows, length[some] - 1] += score[some]
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation, backwards over each response; the value after its end is 0.

    Args:
        rewards, values, mask: [B, R].

    Returns:
        advantages and returns (advantages + values), [B, R], 0 where masked.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        next_value = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(following)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x [B, R] where mask is 1."""
    count = mask.sum()
    mean = (x * mask).sum() / count
    return mean, (((x - mean) * mask) ** 2).sum() / count


def whiten(x: Tensor, mask: Tensor, mean: Tensor, variance: Tensor, shift_mean: bool = True) -> Tensor:
    """x with unit variance, and zero mean unless `shift_mean` is off; [B, R], 0 where masked."""
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


def losses(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    cliprange: float,
    cliprange_value: float,
) -> Losses:
    """The clipped policy and value losses and what is logged about them; all arguments [B, R], all results sums."""
    log_ratio = (log_probs - old_log_probs) * mask
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    near_values = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    value = 0.5 * torch.maximum((values - returns) ** 2, (near_values - returns) ** 2)
    return Losses(
        policy=(torch.maximum(unclipped, clipped) * mask).sum(),
        value=(value * mask).sum(),
        clipped=((clipped > unclipped) * mask).sum(),
        approx_kl=(k3(log_ratio) * mask).sum(),
        ratio=(ratio * mask).sum(),
    )


def k3(log_ratio: Tensor) -> Tensor:
    """The low-variance, never negative KL estimate (r − 1) − log r, from log r; elementwise."""
    return log_ratio.exp() - 1 - log_ratio


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, samples: int) -> float:
    """The next KL coefficient: up when the mean KL per response is above the target; the error is clipped to ±0.2."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * samples / horizon)


def cosine(step: int, steps: int, warmup: int) -> float:
    """The share of the learning rate at `step` of `steps`: a linear rise over `warmup`, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
