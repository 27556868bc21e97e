"""What is held out: SFT's development samples, and preference pairs that choose a checkpoint or are reported."""

import random
from collections.abc import Sequence

from stages.runtime.errors import UserError
from stages.text.records import Pair


def split(dialogues: Sequence[tuple[int, int]], dev_ratio: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the held-out dev samples and of the rest, each in order; no dialogue is in both.

    A later sample of a dialogue has the earlier answers in its history: split by sample, most dev answers could be read
    in a training sample.

    Args:
        dialogues: the dialogue of each sample, as the number of its file and its number in there.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, dialogue in enumerate(dialogues):
        groups.setdefault(dialogue, []).append(index)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    dev: list[int] = []
    for group in shuffled[:-1]:  # one dialogue at least is for training
        if len(dev) >= max(1, round(len(dialogues) * dev_ratio)):
            break
        dev += group
    return sorted(dev), sorted(set(range(len(dialogues))) - set(dev))


def parts(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Every other question's pairs: those that choose the checkpoint, and those that influence nothing.

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
