"""Where an unfinished stage keeps its state, so that it can go on where it was.

DVC deletes a stage's outs before it runs, and keeping them (`persist`) would let a changed parameter resume from a
finished checkpoint. So trainer state lives apart, in `<root>/<stage>/<key>`, where the key is a hash of all that
decides the result: the stage's parameters, its inputs, its code, the libraries' versions. A changed knob is another
key, and finds nothing.

The root is `.work` in the checkout, or what COVID_DOCTOR_WORK says. A temporary experiment runs in a copy of the
checkout that DVC deletes when it ends, also by a failure: its root is the checkout's own, so that it resumes too.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.runtime import imports
from stages.runtime.errors import UserError

KEEP = 2
"""Unfinished states kept beside the one in use, newest first: trying a knob and going back loses nothing."""


TEMPORARY = "/.dvc/tmp/exps/"
"""Folder of a checkout in which DVC makes the copies for `dvc exp run --temp` and the queue."""


def root() -> Path:
    checkout = imports.ROOT.as_posix().partition(TEMPORARY)[0]
    return Path(os.environ.get("COVID_DOCTOR_WORK") or Path(checkout) / ".work").resolve()


def key(stage: str, parameters: Any, inputs: Iterable[Path]) -> str:
    """Hash of the parameters (as JSON), of every input file's bytes, of the stage's code and of what it stands on."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for package in ("torch", "transformers", "peft", "trl", "accelerate"):
        digest.update(f"{package} {version(package)}\n".encode())
    for path in inputs:
        digest.update(hash_path(path).encode())
    for file in imports.closure(imports.ROOT / "stages" / f"{stage}.py"):
        digest.update(hash_path(imports.ROOT / file).encode())
    return digest.hexdigest()[:16]


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
def folder(stage: str, parameters: Any, inputs: Iterable[Path], first_process: bool = True) -> Iterator[Path]:
    """Give the stage's work folder; delete it when the block ends without an error.

    While the block runs, the folder is locked against a second process, and this process ends when its parent does.

    Args:
        first_process: of several processes of one run, only the first locks and deletes.

    Raises:
        UserError: another process works in the folder.
    """
    _die_with_parent()
    path = root() / stage / key(stage, parameters, inputs)
    path.mkdir(parents=True, exist_ok=True)
    if not first_process:
        yield path
        return
    os.utime(path)
    lock_path = path.with_suffix(".lock")
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock_path.exists() or not os.path.samestat(os.fstat(lock.fileno()), lock_path.stat()):
                raise BlockingIOError  # its owner ended just now, and took file and folder away
        except BlockingIOError:
            raise UserError(f"another process is running `{stage}` in {path}; wait for it or end it") from None
        _drop_superseded(path)
        if any(path.iterdir()):
            print(f"{stage}: found the state of an unfinished run, going on from it", file=sys.stderr)
        yield path
        finished = path.with_suffix(".finished")  # at once: half a deleted state would be taken for an unfinished run
        os.replace(path, finished)
        shutil.rmtree(finished)
        lock_path.unlink(missing_ok=True)


def _drop_superseded(current: Path) -> None:
    """Delete unfinished states of other keys, but for the newest KEEP and those that somebody works in."""
    for path in current.parent.glob("*.finished"):
        shutil.rmtree(path, ignore_errors=True)
    others = sorted(
        (p for p in current.parent.iterdir() if p.is_dir() and p != current),
        key=lambda p: (p.stat().st_mtime, p.name),
        reverse=True,
    )
    for path in others[KEEP:]:
        lock_path = path.with_suffix(".lock")
        with lock_path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path)
            lock_path.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """End this process when its parent ends: a killed `dvc` must not leave a trainer that writes beside the next one.

    Linux tells by a signal. Elsewhere, and for a `dvc` further up (a shell or a launcher may stand between), a thread
    looks every second.
    """
    watched = [os.getppid(), *_dvc_ancestors()]
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.getppid()
    if parent != watched[0]:
        raise SystemExit(1)

    def watch() -> None:
        while os.getppid() == parent and all(_alive(pid) for pid in watched):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _dvc_ancestors() -> list[int]:
    """The process ids between this process and the `dvc` that runs the stage, that one included."""
    if "DVC_STAGE" not in os.environ or not Path("/proc/self/stat").exists():
        return []
    found: list[int] = []
    pid = os.getppid()
    while pid > 1:
        found.append(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(Path(word.decode(errors="replace")).name == "dvc" for word in command[:3]):
            return found
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
