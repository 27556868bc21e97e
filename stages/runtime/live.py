"""The newest numbers of a stage while it trains, for `make watch`: `.work/live/<stage>.jsonl`, a row per log entry.

They hold times, so no tracked file has them.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime import processes, resume


class Row(NamedTuple):
    time: float
    """Seconds since 1970."""
    done: int
    """Steps, of `total`."""
    total: int
    values: dict[str, float]
    process: int
    """Of the run that wrote it: a resumed run's pace is its own."""


def note(values: Mapping[str, Any], done: int, total: int) -> None:
    """Append what was logged after `done` of `total` steps; outside of a DVC stage nothing happens."""
    stage = os.environ.get("DVC_STAGE")
    if not stage or not processes.is_first():
        return
    path = resume.own_root() / "live" / f"{stage}.jsonl"
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    with suppress(OSError):  # training must not fail because somebody watches
        path.parent.mkdir(parents=True, exist_ok=True)
        before = read(path)[-1:]
        ours = [row for row in before if row.process == os.getpid() and row.done <= done]
        with path.open("a" if ours else "w", encoding="utf-8") as file:
            file.write(json.dumps(Row(time.time(), done, total, numbers, os.getpid())) + "\n")


def read(path: Path) -> list[Row]:
    """The rows of the run that writes, or last wrote, this file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError, TypeError):  # a line that is being written
            rows.append(Row(*json.loads(line)))
    return rows


def seconds_left(rows: list[Row]) -> float | None:
    """By the pace of this run's rows; None while there are none to tell it."""
    steps = rows[-1].done - rows[0].done if rows else 0
    if not steps:
        return None
    return (rows[-1].time - rows[0].time) / steps * (rows[-1].total - rows[-1].done)
