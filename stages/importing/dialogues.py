"""Doctor–patient dialogues → samples: the rule that the tutorial's published data follows.

1. Turns are taken in pairs (patient, doctor) from the start; a trailing odd turn is dropped, the speaker's prefix is
   cut.
2. Boilerplate sentences are deleted wherever they occur in the doctor's text.
3. A pair is a sample when the doctor's cleaned text has at least `min_answer_length` characters. The history of a
   sample is ALL earlier cleaned pairs of its dialogue, those too short to be samples and the empty ones included.
"""

from collections import Counter
from typing import Annotated, Any

from pydantic import Field

from stages.runtime import params
from stages.runtime.errors import UserError
from stages.text.records import Sample

MAX_TURNS = 1000
"""Each sample repeats the dialogue up to it, so a dialogue of n turns takes n² space."""


class DialogueRules(params.Section):
    """What is special to the texts of one source; the defaults are those of Haodf.com."""

    patient_prefix: Annotated[str, Field(min_length=1)] = "病人："
    """Begins each turn of a patient, and is cut."""
    doctor_prefix: Annotated[str, Field(min_length=1)] = "医生："
    """Begins each turn of a doctor, and is cut."""
    boilerplate: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = (
        "感谢您的信任，病情资料我已详细阅读。",
        "根据您现有的资料，建议：",
        "医生已经通过语音回答了您的问题，请及时收听。",
    )
    """Sentences that the site wrote: deleted from every answer."""
    min_answer_length: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Characters of an answer, without boilerplate; a shorter one stays in the history but does not become a sample."""


def clean_answer(text: str, rules: DialogueRules) -> str:
    """The doctor's text without the boilerplate."""
    for sentence in rules.boilerplate:
        text = text.replace(sentence, "")
    return text


def to_samples(dialogue: Any, rules: DialogueRules, where: str) -> tuple[list[Sample], Counter[str]]:
    """Samples of one dialogue and a count of what was seen and dropped, by reason.

    Args:
        dialogue: a list of texts, a patient's and a doctor's in turn, each with its prefix.
        where: how an error message names the dialogue.

    Raises:
        UserError: not a list of texts, too long, or a turn without the prefix that its place asks for.
    """
    if not isinstance(dialogue, list):
        raise UserError(f"{where}: a dialogue must be a list of turns, not {type(dialogue).__name__}")
    if len(dialogue) > MAX_TURNS:
        raise UserError(f"{where}: has {len(dialogue)} turns, and {MAX_TURNS} are the most; split it into several")
    prefixes = (rules.patient_prefix, rules.doctor_prefix)
    for index, turn in enumerate(dialogue):
        if not isinstance(turn, str) or not turn.startswith(prefixes[index % 2]):
            text = repr(turn)
            shown = text if len(text) <= 40 else f"{text[:40]}…"
            raise UserError(
                f"{where}, turn {index}: expected a text that begins with `{prefixes[index % 2]}`, found {shown}"
            )

    samples: list[Sample] = []
    history: list[list[str]] = []
    counts = Counter(dialogues=1, turns=len(dialogue), dropped_trailing_turn=len(dialogue) % 2)
    for patient, doctor in zip(dialogue[0::2], dialogue[1::2], strict=False):
        question = patient.removeprefix(rules.patient_prefix)
        spoken = doctor.removeprefix(rules.doctor_prefix)
        answer = clean_answer(spoken, rules)
        counts["pairs"] += 1
        counts["answers_with_boilerplate"] += answer != spoken
        if len(answer) >= rules.min_answer_length:
            samples.append(Sample([list(turn) for turn in history], question, answer))
        else:
            counts["dropped_short_answer" if answer else "dropped_empty_answer"] += 1
        history.append([question, answer])
    counts["samples"] = len(samples)
    return samples, counts
