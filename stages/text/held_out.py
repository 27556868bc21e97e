"""Held-out preference pairs in two parts: one chooses a checkpoint of the reward model, the other is reported."""

from collections.abc import Sequence

from stages.runtime.errors import UserError
from stages.text.records import Pair


def parts(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Every other question's pairs: those that choose the checkpoint, and those that had no say in anything.

    Raises:
        UserError: there is one question only.
    """
    questions: dict[str, int] = {}
    numbers = [questions.setdefault(pair.instruction, len(questions)) for pair in pairs]
    if len(questions) < 2:
        raise UserError(
            "the held-out preferences are about one question; raise data.preferences_validate_ratio, as one part "
            "chooses the reward model's checkpoint and another one is reported"
        )
    choosing = [pair for pair, number in zip(pairs, numbers, strict=True) if number % 2 == 0]
    reported = [pair for pair, number in zip(pairs, numbers, strict=True) if number % 2 == 1]
    return choosing, reported
