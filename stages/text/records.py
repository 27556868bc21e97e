"""The records that the stages hand on as JSON lines."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime.errors import UserError
from stages.text import json_files

History = list[list[str]]
"""The earlier rounds of a dialogue, oldest first: `[[question, answer], …]`."""


class Sample(NamedTuple):
    """One question with its history and the doctor's answer."""

    history: History
    instruction: str
    output: str
    dialogue: int | None = None
    """Place of its dialogue in the source file; samples of one dialogue are not independent of each other."""


class Pair(NamedTuple):
    """One question with a better and a worse answer."""

    history: History
    instruction: str
    chosen: str
    rejected: str


def read_samples(path: Path) -> list[Sample]:
    """Raises UserError naming file and line when a line is not a sample."""
    return [Sample(**row) for row in _read(path, Sample._fields, Sample._field_defaults)]


def dialogues(samples: Sequence[Sample]) -> list[int]:
    """The dialogue of each sample; where that is not known, a sample counts as a dialogue of its own."""
    return [place if sample.dialogue is None else sample.dialogue for place, sample in enumerate(samples)]


def read_pairs(path: Path) -> list[Pair]:
    """Raises UserError naming file and line when a line is not a preference pair, or the file when it has none."""
    pairs = [Pair(**row) for row in _read(path, Pair._fields)]
    if not pairs:
        raise UserError(
            f"{path}: no preferences, so there is nothing to train a reward model on; name a file of them in "
            "data.preferences, or run what needs none: `make sft-only`"
        )
    return pairs


def _read(path: Path, fields: tuple[str, ...], optional: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    required = {name for name in fields if name not in optional}
    for number, row in json_files.read_lines(path):
        if not isinstance(row, dict) or not required <= row.keys() <= set(fields):
            raise UserError(f"{path}, line {number}: expected an object with the keys {', '.join(fields)}")
        if not is_history(row["history"]) or not all(isinstance(row[key], str) for key in required - {"history"}):
            raise UserError(f"{path}, line {number}: expected texts, and a list of [question, answer] as the history")
        yield row


def is_history(value: Any) -> bool:
    """Whether it is a `History`."""
    return isinstance(value, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in value
    )
