"""How much of the test split stands, word for word, in the training split."""

from collections.abc import Sequence
from typing import Any

from stages.text.records import Sample

MIN_ANSWER = 8
"""Characters; shorter answers (好的。) recur by themselves."""


def overlap(test: Sequence[Sample], train: Sequence[Sample]) -> dict[str, Any]:
    """Shares (0..1) of test questions, of test answers with at least `MIN_ANSWER` characters, and of question and
    answer together, that occur in training; the training dialogues' histories are searched too.
    """
    pairs = {(sample.instruction, sample.output) for sample in train}
    pairs |= {(question, answer) for sample in train for question, answer in sample.history}
    questions, answers = {question for question, _ in pairs}, {answer for _, answer in pairs}
    long = [sample for sample in test if len(sample.output) >= MIN_ANSWER]
    return {
        "questions": _share([sample.instruction in questions for sample in test]),
        "answers": _share([sample.output in answers for sample in long]),
        "pairs": _share([(sample.instruction, sample.output) in pairs for sample in test]),
        "answers_compared": len(long),
    }


def _share(found: list[bool]) -> float:
    return round(sum(found) / len(found), 4) if found else 0.0
