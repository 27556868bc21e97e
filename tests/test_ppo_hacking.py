"""The warning comes when the reward rises at a price, and only then."""

import pytest

from stages.rl import reward_hacking


def run(early: dict[str, float] | None = None, **late: float) -> list[dict[str, float]]:
    start = {"score": 0.0, "repetition": 0.01, "kl": 0.5, "response_length": 20.0, "length_score_correlation": 0.2}
    start |= early or {}
    return [start] * 10 + [start | late] * 5


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        (run(score=1.0, kl=4.9), None),
        (run(score=1.0, kl=5.1), "the KL to the reference runs away"),
        (run({"kl": 80.0}, score=1.0, kl=40.0), None),  # far away, and coming back
        (run(score=1.0, repetition=0.065), None),  # below twice the start and five points
        (run(score=1.0, repetition=0.08), "answers repeat themselves"),
        (run({"repetition": 0.25}, score=1.0, repetition=0.35), "answers repeat themselves"),  # less than twice
        (run({"repetition": 0.6}, score=1.0, repetition=0.5), None),  # less than before
        (run(score=1.0, response_length=31.0, length_score_correlation=0.6), "their score follows their length"),
        (run(score=1.0, response_length=29.0, length_score_correlation=0.6), None),  # not half as long again
        (run(score=1.0, response_length=31.0, length_score_correlation=0.5), None),  # length does not decide
        (run({"length_score_correlation": 0.8}, score=1.0, response_length=31.0, length_score_correlation=0.7), None),
        (run(score=-1.0, repetition=0.08, kl=9.0), None),  # no reward for it: bad, but no hacking
        (run(score=1.0, kl=9.0)[1:], None),  # too early to tell
    ],
)
def test_signs(rows, warning):
    found = reward_hacking.signs(rows, kl_target=1.0)
    assert (found is None) if warning is None else (found is not None and warning in found)


def test_without_a_target_thirty_nats_are_too_many():
    assert reward_hacking.signs(run(score=1.0, kl=29.0), kl_target=None) is None
    assert "KL 31.0" in str(reward_hacking.signs(run(score=1.0, kl=31.0), kl_target=None))
