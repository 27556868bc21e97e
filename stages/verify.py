"""The same commit, run twice from nothing, must leave the same bytes.

python -m stages.verify --help
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.runtime import params, resume
from stages.runtime.command import command
from stages.runtime.errors import UserError

LOCK = "dvc.lock"


@command
def main(
    targets: Annotated[list[str] | None, typer.Argument(help="stages to run, with what they need; all if none")] = None,
) -> None:
    """Run the pipeline in two fresh clones of the last commit, and say which file differs between them."""
    if git("status", "--porcelain", "--untracked-files=no"):
        print("note: the last commit is checked; uncommitted changes are ignored", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="verify-"))
    clones = [folder / name for name in ("first", "second")]
    try:
        for clone in clones:
            print(f"{clone.name} run …", flush=True)
            run(clone, None, targets or [])
        found = differences(*clones)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if found:
        raise UserError(f"two runs of one commit differ ({folder} keeps both): {'; '.join(found)}")
    shutil.rmtree(folder)
    print(f"the same bytes twice: {LOCK} and every file that it names")


def run(clone: Path, profile: str | None, targets: list[str]) -> None:
    """Clone the last commit and run the pipeline there, with a cache and a work folder of its own.

    Raises:
        UserError: a command fails; its last lines are in the message.
    """
    environment = os.environ | {
        # The stages are run by `python`: this interpreter, whatever the shell's is.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "COVID_DOCTOR_WORK": str(clone / ".work"),
        "DVC_SITE_CACHE_DIR": str(clone / ".dvc" / "site"),
        "DVC_NO_ANALYTICS": "1",
    }
    for name in [name for name in environment if name.startswith("GIT_") or name in ("DVC_STAGE", "DVC_ROOT")]:
        del environment[name]  # inside a Git hook or a stage they would point back at this checkout
    dvc = [sys.executable, "-m", "dvc"]
    steps = [
        (Path.cwd(), ["git", "clone", "--quiet", "--no-hardlinks", str(resume.ROOT), str(clone)]),
        # Also where the user's own settings put all caches in one shared place.
        (clone, [*dvc, "config", "--local", "cache.dir", str(clone / ".dvc" / "cache")]),
        *([(clone, [sys.executable, "-m", "stages.profile", profile])] if profile else []),
        # The commit's own lock file must not let a stage be skipped.
        (clone, [*dvc, "repro", "--force", *targets]),
    ]
    for folder, step in steps:
        done = subprocess.run(
            step, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            last = " | ".join(line.strip() for line in done.stdout.splitlines()[-4:] if line.strip())
            raise UserError(f"the {clone.name} run failed at `{' '.join(map(str, step[-3:]))}`: {last}")


def differences(first: Path, second: Path) -> list[str]:
    """A line for each file whose bytes differ between two checkouts that were run; none when dvc.lock is the same."""
    locks = [clone / LOCK for clone in (first, second)]
    if locks[0].read_bytes() == locks[1].read_bytes():
        return []
    stages = [params.read(lock)["stages"] for lock in locks]
    found: list[str] = []
    for stage in sorted(stages[0].keys() | stages[1].keys()):
        entries = [each.get(stage, {}) for each in stages]
        outs = [{out["path"]: out.get("md5") for out in entry.get("outs", [])} for entry in entries]
        for out in sorted(outs[0].keys() | outs[1].keys()):
            if outs[0].get(out) != outs[1].get(out):
                files = differing_files(first, second, out)
                found.append(f"{stage} writes {', '.join(files) if files else out}")
        if [entry.get("cmd") for entry in entries] != [entry.get("cmd") for entry in entries][::-1]:
            found.append(f"{stage} has another command")
    return found or [f"{LOCK} itself, though every out in it is the same"]


def differing_files(first: Path, second: Path, out: str) -> list[str]:
    """The files of one out (a file or a folder) that differ or are on one side only, relative to the checkout."""
    sides: list[dict[str, Any]] = []
    for clone in (first, second):
        path = clone / out
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        sides.append({str(file.relative_to(clone)): resume.hash_path(file) for file in files})
    return sorted(name for name in sides[0].keys() | sides[1].keys() if sides[0].get(name) != sides[1].get(name))


def git(*words: str) -> str:
    """What git prints for the checkout; UserError when it is none."""
    done = subprocess.run(["git", *words], cwd=resume.ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"{resume.ROOT} is no Git checkout: {' '.join(done.stderr.split())}")
    return done.stdout


if __name__ == "__main__":
    typer.run(main)
