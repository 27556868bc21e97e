"""Put right what a killed `dvc` leaves, which no `dvc repro` gets past: files that it writes in place, cut off.

    python -m stages.recover

`make repro` calls it first. Nothing happens while another `dvc` runs, or where nothing is broken.
"""

import json
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from stages.runtime import atomic, params, resume
from stages.runtime.command import command
from stages.runtime.errors import UserError


@command
def main(
    checkout: Annotated[Path, typer.Option(help="the checkout, where dvc.yaml is")] = resume.ROOT,
) -> None:
    """Restore a damaged dvc.lock from the last commit; delete DVC's own damaged notes."""
    from filelock import FileLock, Timeout

    scratch = checkout / ".dvc" / "tmp"
    if not scratch.is_dir():
        return
    try:
        with FileLock(scratch / "lock", blocking=False):  # the lock that `dvc` takes
            for lock in sorted(checkout.glob("dvc.lock")) + sorted(checkout.glob("*/dvc.lock")):
                restore(lock, checkout)
            drop_if_broken(scratch / "rwlock")
    except Timeout:
        return


def restore(lock: Path, checkout: Path) -> None:
    """Give dvc.lock back as committed; what has finished since is in DVC's run cache, and is not run again."""
    if is_whole(lock):
        return
    name = lock.relative_to(checkout)
    committed = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=checkout, capture_output=True, check=False)
    if committed.returncode:
        lock.unlink()
        what = "deleted, since the last commit has none"
    else:
        atomic.write_bytes(lock, committed.stdout)
        what = "restored from the last commit"
    print(f"{name} was cut off when dvc was killed: {what}; finished stages come from DVC's run cache")


def is_whole(lock: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(params.read(lock))
    except (UserError, Invalid):
        return False
    return lock.read_bytes().endswith(b"\n")  # else its last hash may be cut, which DVC would believe


def drop_if_broken(notes: Path) -> None:
    """Delete the note of who reads and writes which file, unless it is JSON; DVC makes a new one."""
    try:
        json.loads(notes.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        notes.unlink()
        print(f"{notes.name} was cut off when dvc was killed: deleted; dvc makes it anew")


if __name__ == "__main__":
    typer.run(main)
