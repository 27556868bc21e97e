"""Dialogues → a part to train on, one for validation and one to test on."""

import random
from collections.abc import Sequence

from stages.runtime.errors import UserError


def split(
    dialogues: Sequence[list[str]], validate: float, test: float, seed: int, source: str
) -> dict[str, list[list[str]]]:
    """Whole dialogues at random into three parts, none of them empty, each in the order of the file.

    Dialogues of the same questions come into the same part: the test would else ask what was trained on.

    Args:
        validate: ratio of the part; so is `test`.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, dialogue in enumerate(dialogues):
        groups.setdefault(tuple(dialogue[0::2]), []).append(index)
    if len(groups) < 3:
        raise UserError(f"{source}: {len(groups)} different dialogues are too few for training, validation and test")
    first, second = (max(1, round(ratio * len(groups))) for ratio in (validate, test))
    if first + second >= len(groups):
        raise UserError(
            f"{source}: of {len(groups)} different dialogues {first} for validation and {second} for the test leave "
            "none to train on; set --validate and --test lower"
        )
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    parts = {
        "train": shuffled[first + second :],
        "validate": shuffled[:first],
        "test": shuffled[first : first + second],
    }
    return {
        part: [dialogues[i] for i in sorted(i for group in chosen for i in group)] for part, chosen in parts.items()
    }
