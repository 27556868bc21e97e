"""Where an unfinished stage keeps its state, so that it can go on where it was.

DVC deletes a stage's outs before it runs, and keeping them (`persist`) would let a changed parameter resume from a
finished checkpoint. So trainer state lives apart, in `<root>/<stage>/<key>`, where the key is a hash of all that
decides the result: the stage's parameters, its inputs, its code, the libraries' versions. A changed parameter is
another key, and finds nothing.

The root is `.work` in the checkout, or what COVID_DOCTOR_WORK says. A temporary experiment runs in a copy of the
checkout that DVC deletes when it ends, also by a failure: its root is the checkout's own, so that it resumes too.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from stages.runtime import params, processes
from stages.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, or a copy that DVC made of it."""
TEMPORARY = "/.dvc/tmp/exps/"
"""Folder of a checkout in which DVC makes the copies for `dvc exp run --temp` and the queue."""
KEEP_DAYS = 14
"""An unfinished state that nobody has touched for so long is deleted. `make clean` deletes all."""


def root() -> Path:
    checkout = ROOT.as_posix().partition(TEMPORARY)[0]
    return Path(os.environ.get("COVID_DOCTOR_WORK") or Path(checkout) / ".work").resolve()


def own_root() -> Path:
    """As `root`, but a temporary copy has its own: what runs side by side does not overwrite each other's notes."""
    return Path(os.environ.get("COVID_DOCTOR_WORK") or ROOT / ".work").resolve()


def key(stage: str, parameters: Any, inputs: Iterable[Path]) -> str:
    """Hash of the parameters (as JSON), every input file's bytes, the stage's code and the libraries' versions."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for package in ("torch", "transformers", "peft", "trl", "accelerate"):
        digest.update(f"{package} {version(package)}\n".encode())
    for path in [*inputs, *code(stage)]:
        digest.update(hash_path(path).encode())
    return digest.hexdigest()[:16]


def code(stage: str) -> list[Path]:
    """The code that dvc.yaml says the stage depends on; all of it where dvc.yaml has no such stage."""
    declared = params.read(ROOT / "dvc.yaml")["stages"].get(stage, {"deps": ["stages"]})["deps"]
    return [ROOT / path for path in declared if Path(path).parts[0] == "stages"]


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and files in sorted order."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not _ignored(p, path))
    if not files:
        raise FileNotFoundError(2, "no such file or an empty folder", str(path))
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _ignored(path: Path, top: Path) -> bool:
    return "__pycache__" in path.relative_to(top).parts


@contextmanager
def folder(stage: str, parameters: Any, inputs: Iterable[Path]) -> Iterator[Path]:
    """Give the stage's work folder; delete it when the block ends without an error.

    A second run with the same key (an experiment that shares this stage's parameters) works beside the first, in
    `<key>-2`. To wait would save nothing: the first leaves no state, and its outputs lie in another copy.

    Raises:
        UserError: this run has several processes, which can't agree on a second folder.
    """
    top, name = root() / stage, key(stage, parameters, inputs)
    top.mkdir(parents=True, exist_ok=True)
    if not processes.is_first():  # the first one locks and deletes
        (top / name).mkdir(exist_ok=True)
        yield top / name
        return
    for number in count(1):
        path = top / (name if number == 1 else f"{name}-{number}")
        lock = _lock(path)
        if lock:
            break
        if processes.count() > 1:
            raise UserError(f"another run of `{stage}` works in {path}; wait for it, or end it")
        print(
            f"{stage}: another run with the same parameters works in {path}; this one works beside it", file=sys.stderr
        )
    try:
        path.mkdir(exist_ok=True)
        os.utime(path)
        _drop_old(path)
        if any(path.iterdir()):
            print(f"{stage}: found the state of an unfinished run, going on from it", file=sys.stderr)
        yield path
        finished = path.with_suffix(".finished")  # at once: half a deleted state would be taken for an unfinished run
        os.replace(path, finished)
        shutil.rmtree(finished)
        Path(lock.lock_file).unlink()
    finally:
        lock.release()


def _lock(path: Path) -> Any:
    """The lock of a work folder, held; None when another process holds it. A process that dies lets go of it."""
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(path.with_suffix(".lock"), blocking=False)
        lock.acquire()
        return lock
    except Timeout:
        return None


def _drop_old(current: Path) -> None:
    """Delete the states that were left KEEP_DAYS ago, and what remains of finished ones."""
    for path in current.parent.iterdir():
        if path.suffix == ".finished":
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and path != current and time.time() - path.stat().st_mtime > KEEP_DAYS * 86400:
            lock = _lock(path)
            if lock:
                shutil.rmtree(path)
                Path(lock.lock_file).unlink()
                lock.release()
