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
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
SEEN_AFTER = 10
"""Seconds in which a network file system must show a new file on another machine."""


def checkout() -> Path:
    """The checkout itself, also from a temporary copy of it."""
    return Path(ROOT.as_posix().partition(TEMPORARY)[0])


def root() -> Path:
    return Path(os.environ.get("COVID_DOCTOR_WORK") or checkout() / ".work").resolve()


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

    Of several processes the first locks, chooses and deletes.

    Raises:
        UserError: the folder is not the same on all machines.
    """
    top = root() / stage
    locks: list[Any] = []  # held by the first process alone

    def choose() -> Path:
        top.mkdir(parents=True, exist_ok=True)
        path, lock = _free(top, key(stage, parameters, inputs))
        locks.append(lock)
        path.mkdir(exist_ok=True)
        os.utime(path)
        _drop_old(path)
        if any(path.iterdir()):
            print(f"{stage}: found the state of an unfinished run, going on from it", file=sys.stderr)
        return path

    try:
        path = processes.from_first(choose)
        _check_shared(path)
        yield path
        processes.wait_for_all()  # one that is slow may still read its best weights here
        for lock in locks:
            finished = path.with_suffix(".finished")  # at once: half a deleted state would look like an unfinished run
            os.replace(path, finished)
            shutil.rmtree(finished, ignore_errors=True)  # another run may be clearing it away too
            Path(lock.lock_file).unlink()
    finally:
        for lock in locks:
            lock.release()


def _free(top: Path, name: str) -> tuple[Path, Any]:
    """The first of `name`, `name-2`, … that no other run works in, and its lock, held."""
    for number in count(1):
        path = top / (name if number == 1 else f"{name}-{number}")
        lock = _lock(path)
        if lock:
            return path, lock
        print(
            f"{top.name}: another run with the same parameters works in {path}; this one works beside it",
            file=sys.stderr,
        )
    raise AssertionError("numbers do not end")


def _check_shared(path: Path) -> None:
    """Raises UserError where the processes of other machines do not see what the first one writes."""
    if processes.count() == 1:
        return
    mark = path / f".seen-by-all-{processes.from_first(lambda: secrets.token_hex(8))}"
    if processes.is_first():
        mark.touch()
    processes.wait_for_all()
    deadline = time.monotonic() + SEEN_AFTER
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    machines = {name for name, sees in processes.everyones((platform.node(), mark.exists())) if not sees}
    if processes.is_first():
        mark.unlink()
    if machines:
        raise UserError(
            f"{path} on {', '.join(sorted(machines))} is not the first process's folder: all machines must share the "
            "work folder; set COVID_DOCTOR_WORK to one on a shared file system"
        )


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
        with suppress(FileNotFoundError):  # another run may be clearing it away too
            if path.suffix == ".finished":
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and path != current and time.time() - path.stat().st_mtime > KEEP_DAYS * 86400:
                lock = _lock(path)
                if lock:
                    shutil.rmtree(path)
                    Path(lock.lock_file).unlink()
                    lock.release()
