"""Files and folders that are either whole or absent: written under a temporary name, then renamed.

A temporary name is `.<name>.<process id>-<random>.partial`: two processes that write one path do not meet, and the
leftovers of a killed one are known by its id and go with the next write.
"""

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    with _replacement(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """One row per mapping; floats with six significant digits, a missing value as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(name) for name in columns)
        writer.writerow("" if c is None else f"{c:.6g}" if isinstance(c, float) else c for c in cells)
    write_text(path, text.getvalue())


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `path` when the block ends without an error."""
    with _replacement(path) as temporary:
        temporary.mkdir()
        yield temporary
        _remove(path)


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what the block made there is renamed to `path`.

    After an error nothing of it is left: a disk that ran full is not full of a half-written model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{escape(path.name)}.*-*.partial"):
        if not _is_running(leftover.name.removesuffix(".partial").rpartition(".")[2].partition("-")[0]):
            _remove(leftover)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write to an open file does not know its name
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except OSError:
        pass
    return True
