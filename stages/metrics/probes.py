"""Answers, changed on purpose → what the reward model is asked about, to learn what it rewards.

Each probe is a text for every test question. Its reward beside that of the unchanged answer tells whether the reward
model reads the question, and whether it can be had for length alone.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Text(NamedTuple):
    """A text to score as an answer, and whether it ended by itself."""

    text: str
    ended: bool


def texts(
    doctor: Sequence[str], sft: Sequence[Text], ppo: Sequence[Text], dialogues: Sequence[Hashable], closing: str
) -> dict[str, list[Text]]:
    """Probe → its text for each question.

    Args:
        doctor: the doctor's own answers.
        dialogues: the dialogue of each question; an "other" answer comes from another dialogue.
        closing: a usual last sentence of the doctors' answers; without one ("") its two probes are left out.
    """
    other = others(dialogues)
    found = {
        "doctor": [Text(text, True) for text in doctor],
        "ppo_other_question": [ppo[at] for at in other],
        "sft_unrelated_appended": [
            Text(own.text + sft[at].text, sft[at].ended) for own, at in zip(sft, other, strict=True)
        ],
        # ended as PPO's answer did: a missing EOS would cost reward for another reason than length
        "ppo_cut": [Text(b.text[: len(a.text)], b.ended) for a, b in zip(sft, ppo, strict=True)],
    }
    if closing:
        found["sft_closing_appended"] = [Text(own.text + closing, own.ended) for own in sft]
        found["closing"] = [Text(closing, True)] * len(sft)
    return found


def others(groups: Sequence[Hashable]) -> list[int]:
    """For each place one of another group, half the list away or the next that fits; its own where there is none."""
    count = len(groups)
    found = []
    for place, group in enumerate(groups):
        candidates = ((place + count // 2 + step) % count for step in range(count))
        found.append(next((at for at in candidates if groups[at] != group), place))
    return found
