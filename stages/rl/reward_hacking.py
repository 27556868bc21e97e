"""Signs that the policy games the reward model instead of answering better."""

from collections.abc import Mapping, Sequence

WINDOW = 5
"""Updates that are averaged, at the start of the run and at its end."""


def signs(rows: Sequence[Mapping[str, float]], kl_target: float | None) -> str | None:
    """What to tell the user when the reward rises while answers repeat themselves or the policy runs away.

    Args:
        rows: the curve so far, one row per update.
        kl_target: the KL per response that was asked for, in nats; five times that (without a target, 30) is too far.
    """
    if len(rows) < 3 * WINDOW:
        return None

    def mean(part: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(row[name] for row in part) / len(part)

    early, late = rows[:WINDOW], rows[-WINDOW:]
    if mean(late, "score") <= mean(early, "score"):
        return None
    if mean(late, "repetition") > 2 * mean(early, "repetition") + 0.05:
        what = "answers repeat themselves more and more"
    elif mean(late, "kl") > 5 * (kl_target or 6.0):
        what = "the KL to the reference runs away"
    else:
        return None
    return (
        f"the reward rises while {what} (repetition {mean(late, 'repetition'):.2f}, KL {mean(late, 'kl'):.1f}). "
        "It may be hacked: raise ppo.kl_coef, lower ppo.learning_rate, or set ppo.early_stop_kl"
    )
