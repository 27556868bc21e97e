"""Rows of a training curve: what a trainer logged, cut to the columns that are the same in every run.

A trainer's own log also holds times and speeds; a tracked file may not.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.runtime import atomic


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows that have a value in each column, one CSV line per logging step."""
    atomic.write_csv(path, columns, (row for row in rows if all(row.get(name) is not None for name in columns)))
