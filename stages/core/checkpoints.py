"""Checkpoints that are known to be whole: each folder carries a list of its files and their hashes, written last."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from stages.core import atomic

SEAL = "sealed.json"


def seal(checkpoint: Path) -> None:
    """Hash every file of the folder into its seal. A folder without one was never finished."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)
    atomic.write_json(checkpoint / SEAL, {str(p.relative_to(checkpoint)): _hash(p) for p in files})


def latest(work: Path) -> Path | None:
    """The newest whole `checkpoint-<step>` below `work`, or None.

    A newer one that is unfinished, truncated or altered is reported in one line each and deleted.
    """
    folders = [p for p in work.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for folder in sorted(folders, key=step, reverse=True):
        fault = _fault(folder)
        if fault is None:
            return folder
        print(f"{folder.name}: {fault}; the checkpoint before it is used", file=sys.stderr)
        shutil.rmtree(folder)
    return None


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _fault(folder: Path) -> str | None:
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "was never finished"
    except json.JSONDecodeError:
        return "its seal is damaged"
    for name, expected in sealed.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _hash(folder / name) != expected:
            return f"{name} is truncated or altered"
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
