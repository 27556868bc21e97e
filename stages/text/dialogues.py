"""Doctor–patient dialogues → samples: the rule that the tutorial's published data follows.

1. Turns are taken in pairs (patient, doctor) from the start; a trailing odd turn is dropped, the three-character
   speaker prefix is cut.
2. Three boilerplate sentences are deleted wherever they stand in the doctor's text.
3. A pair is a sample when the doctor's cleaned text has more than four characters. The history of a sample is ALL
   earlier cleaned pairs of its dialogue, those too short to be samples and the empty ones included.
"""

from collections import Counter
from typing import Any

from stages.runtime.errors import UserError
from stages.text.records import Sample

SPEAKERS = ("病人：", "医生：")
BOILERPLATE = (
    "感谢您的信任，病情资料我已详细阅读。",
    "根据您现有的资料，建议：",
    "医生已经通过语音回答了您的问题，请及时收听。",
)
MIN_CHARACTERS = 5


def clean_answer(text: str) -> str:
    """The doctor's text without the boilerplate."""
    for sentence in BOILERPLATE:
        text = text.replace(sentence, "")
    return text


def to_samples(dialogue: Any, where: str) -> tuple[list[Sample], Counter[str]]:
    """Samples of one dialogue and a count of what was seen and dropped, by reason.

    Args:
        dialogue: a list of strings that alternate `病人：…` and `医生：…`.
        where: how an error message names the dialogue.

    Raises:
        UserError: not a list of strings, or a turn without the speaker that its place asks for.
    """
    if not isinstance(dialogue, list):
        raise UserError(f"{where}: a dialogue must be a list of turns, not {type(dialogue).__name__}")
    for index, turn in enumerate(dialogue):
        speaker = SPEAKERS[index % 2]
        if not isinstance(turn, str) or not turn.startswith(speaker):
            shown = repr(turn if len(str(turn)) <= 30 else str(turn)[:30] + "…")
            raise UserError(f"{where}, turn {index}: expected a text that begins with `{speaker}`, found {shown}")

    samples: list[Sample] = []
    history: list[list[str]] = []
    counts = Counter(dialogues=1, turns=len(dialogue), dropped_trailing_turn=len(dialogue) % 2)
    for patient, doctor in zip(dialogue[0::2], dialogue[1::2], strict=False):
        question = patient[len(SPEAKERS[0]) :]
        answer = clean_answer(doctor[len(SPEAKERS[1]) :])
        counts["pairs"] += 1
        if len(answer) >= MIN_CHARACTERS:
            samples.append(Sample([list(round_) for round_ in history], question, answer))
        else:
            counts["dropped_short_answer" if answer else "dropped_empty_answer"] += 1
        history.append([question, answer])
    counts["samples"] = len(samples)
    return samples, counts
