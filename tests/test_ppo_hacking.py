"""The warning comes when the reward rises at a price, and only then."""

import pytest

from stages.rl import reward_hacking


def run(**late: float) -> list[dict[str, float]]:
    early = {"score": 0.0, "repetition": 0.01, "kl": 0.5}
    return [early] * 10 + [early | late] * 5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (run(score=1.0, kl=4.9), None),
        (run(score=1.0, kl=5.1), "the KL to the reference runs away"),
        (run(score=1.0, repetition=0.065), None),  # below twice the start and five points
        (run(score=1.0, repetition=0.08), "answers repeat themselves"),
        (run(score=-1.0, repetition=0.08, kl=9.0), None),  # no reward for it: bad, but no hacking
        (run(score=1.0, kl=9.0)[1:], None),  # too early to tell
    ],
)
def test_signs(rows, said):
    signs = reward_hacking.signs(rows, kl_target=1.0)
    assert (said is None and signs is None) or said in signs


def test_without_a_target_thirty_nats_are_too_many():
    assert reward_hacking.signs(run(score=1.0, kl=29.0), kl_target=None) is None
    assert "KL 31.0" in reward_hacking.signs(run(score=1.0, kl=31.0), kl_target=None)
