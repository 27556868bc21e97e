"""Rollouts → what an update learns from: scores, log-probabilities, KL, rewards, advantages."""

from typing import NamedTuple

from torch import Tensor

from stages.rl import maths
from stages.rl.config import PpoConfig
from stages.rl.logprobs import TokenLogProbs


class Experience(NamedTuple):
    """B responses, R positions; 0 where masked."""

    scores: Tensor
    """[B], the reward model's, raw."""
    log_probs: Tensor
    """[B, R], the policy's before the update."""
    entropy: Tensor
    """[B, R]."""
    kl: Tensor
    """[B, R], k1: the policy's log-probability less the reference's."""
    rewards: Tensor
    """[B, R], before they are whitened."""
    values: Tensor
    """[B, R]."""
    advantages: Tensor
    """[B, R], whitened."""
    returns: Tensor
    """[B, R]."""
    mask: Tensor
    """[B, R], 1 on the responses' tokens."""


def estimate_advantages(
    scores: Tensor,
    final_scores: Tensor,
    policy: TokenLogProbs,
    reference: TokenLogProbs,
    mask: Tensor,
    kl_coef: float,
    config: PpoConfig,
) -> Experience:
    """Token rewards, then their advantages.

    Args:
        scores, final_scores: [B], as the reward model gave them, and as they are paid out.
        mask: [B, R].
        kl_coef: the price of a nat of KL.
    """
    # KL to the reference inside the reward: Ziegler et al. 2019, equation 2
    kl = (policy.log_probs - reference.log_probs) * mask
    rewards = maths.token_rewards(kl, final_scores, mask, kl_coef)
    shaped = rewards
    if config.whiten_rewards:
        shaped = maths.whiten(rewards, mask, *maths.moments(rewards, mask), shift_mean=False)
    # Schulman et al. 2016, equation 16
    advantages, returns = maths.gae(shaped, policy.values, mask, config.gamma, config.lam)
    advantages = maths.whiten(advantages, mask, *maths.moments(advantages, mask))
    return Experience(scores, policy.log_probs, policy.entropy, kl, rewards, policy.values, advantages, returns, mask)
