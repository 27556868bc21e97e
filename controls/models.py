"""What is compared, in the order of the tables, and where each one's answers come from."""

import math
from typing import NamedTuple


class Compared(NamedTuple):
    name: str
    policy: bool = False
    """Whether an adapter of its own answers, whose distance from the SFT model can be measured."""
    n: int = 0
    """Of best-of-n."""


SUBJECT = "ppo_half"
"""PPO on the first half of the pairs: what all others are held against."""
MODELS = (
    Compared(SUBJECT, policy=True),
    Compared("sft"),
    Compared("best_of_4", n=4),
    Compared("best_of_16", n=16),
    Compared("dpo", policy=True),
    Compared("length_only", policy=True),
    Compared("no_critic", policy=True),
    Compared("retrieval"),
    Compared("ppo", policy=True),
)
"""The last is the run's own PPO, whose reward model has read all pairs, those of the judge too."""
SIZES = (1, 2, 4, 8, 16)
"""The n of best-of-n whose rewards are measured."""


def kl_bound(n: int) -> float:
    """The most that best-of-n can be away from what it draws from, in nats per answer.

    Beirami et al. 2024, arXiv 2401.01879.
    """
    return math.log(n) - (n - 1) / n
