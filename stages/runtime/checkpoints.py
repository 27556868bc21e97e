"""Checkpoints that are known to be whole: each folder carries a list of its files and their hashes, written last.

A checkpoint of transformers' Trainer also names the best one so far, whose weights the run will end with: it is worth
nothing without that one.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from stages.runtime import atomic

SEAL = "sealed.json"
KEPT = 2
"""The newest one, and one to fall back on."""


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
        best = best_of(folder) if fault is None else folder
        if best != folder and (lost := _fault(best)):
            fault = f"it ends with the weights of {best.name}, and there {lost}"
        if fault is None:
            return folder
        print(f"{folder.name}: {fault}; the checkpoint before it is used", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return None


def rotate(work: Path) -> None:
    """Delete all but the newest checkpoints and those that they name as the best so far."""
    folders = sorted((p for p in work.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()), key=step)
    kept = {needed for folder in folders[-KEPT:] for needed in (folder, best_of(folder))}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def best_of(checkpoint: Path) -> Path:
    """The best checkpoint so far, by what the Trainer recorded in this one; itself where nothing is recorded."""
    path = checkpoint / "trainer_state.json"
    best = json.loads(path.read_text(encoding="utf-8"))["best_model_checkpoint"] if path.is_file() else None
    return checkpoint.with_name(Path(best).name) if best else checkpoint


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _fault(folder: Path) -> str | None:
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "was never finished"
    except ValueError:
        sealed = None
    if not isinstance(sealed, dict) or not sealed:
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
