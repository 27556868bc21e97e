"""Signs that the policy games the reward model instead of answering better."""

from collections.abc import Mapping, Sequence

WINDOW = 5
"""Updates that are averaged, at the start of the run and at its end."""
REPETITION = 0.3
"""Share of repeated 4-grams above which answers loop, wherever they started."""
LENGTH_GROWTH = 1.5
LENGTH_BOUND = 0.5
"""Correlation of score and length above which the score is mostly length."""


def signs(rows: Sequence[Mapping[str, float]], kl_target: float | None) -> str | None:
    """What to tell the user when the score rises while answers repeat themselves, grow for the sake of their length, or
    the policy runs away.

    Args:
        rows: the curve so far, one row per update.
        kl_target: the KL per response that was asked for, in nats; five times that (without a target, 30) is too far.
    """
    if len(rows) < 3 * WINDOW:
        return None

    def mean(part: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(row[name] for row in part) / len(part)

    early, late = rows[:WINDOW], rows[-WINDOW:]

    def rises(name: str) -> bool:
        return mean(late, name) > mean(early, name)

    if not rises("score"):
        return None
    repetition, correlation = mean(late, "repetition"), mean(late, "length_score_correlation")
    longer = mean(late, "response_length") > LENGTH_GROWTH * mean(early, "response_length")
    if rises("repetition") and repetition > min(2 * mean(early, "repetition") + 0.05, REPETITION):
        what = "answers repeat themselves more and more"
    elif longer and rises("length_score_correlation") and correlation > LENGTH_BOUND:
        what = "answers grow, and their score follows their length"
    elif rises("kl") and mean(late, "kl") > 5 * (kl_target or 6.0):
        what = "the KL to the reference runs away"
    else:
        return None
    return (
        f"possible reward hacking: the score rises while {what} "
        f"(repetition {repetition:.2f}, KL {mean(late, 'kl'):.1f}, "
        f"length {mean(late, 'response_length'):.0f}, its correlation with the score {correlation:.2f}). "
        "Raise ppo.kl_coef, lower ppo.learning_rate, or set ppo.early_stop_kl"
    )
