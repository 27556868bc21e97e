"""The records that the stages hand on as JSON lines."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime.errors import UserError

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


def read_pairs(path: Path) -> list[Pair]:
    """Raises UserError naming file and line when a line is not a preference pair."""
    return [Pair(**row) for row in _read(path, Pair._fields)]


def _read(path: Path, fields: tuple[str, ...], optional: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    required = {name for name in fields if name not in optional}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict) or not required <= row.keys() <= set(fields):
            raise UserError(f"{path}, line {number}: expected an object with the keys {', '.join(fields)}")
        yield row
