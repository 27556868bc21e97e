"""Run the smallest profile on this machine and compare its bytes with those in Git.

    python -m stages.reproduce --help

The profile `smallest` computes with kernels that are the same on every x86-64 processor with AVX2 (`model.portable`),
so the bytes do not depend on the machine: a difference means other code, other data or other versions of libraries.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stages import verify
from stages.runtime import atomic, resume
from stages.runtime.command import command
from stages.runtime.errors import UserError

PROFILE = "smallest"
FILES = ("models/*/*.safetensors", "reports/*/*curve.csv", "reports/rm/scores.jsonl", "reports/answers/*.jsonl")


@command
def main(
    update: Annotated[bool, typer.Option("--update", help="write the hashes instead of comparing with them")] = False,
) -> None:
    """Run the last commit with the profile `smallest` in a fresh clone, and compare hashes of what it leaves."""
    expected = resume.ROOT / "profiles" / f"{PROFILE}.sha256"
    folder = Path(tempfile.mkdtemp(prefix="reproduce-"))
    try:
        verify.run(folder / PROFILE, PROFILE, ["evaluate"])
        found = hashes(folder / PROFILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if update:
        atomic.write_text(expected, found)
        print(f"{expected.relative_to(resume.ROOT)}: written")
        return
    before, after = (set(text.splitlines()) for text in (expected.read_text(encoding="utf-8"), found))
    if before != after:
        names = sorted({line.split("  ")[1] for line in before ^ after})
        raise UserError(
            f"other bytes than {expected.relative_to(resume.ROOT)} has: {', '.join(names)}. If code or data were meant "
            "to change them: `make reproduce UPDATE=1`"
        )
    print(f"the same bytes as {expected.relative_to(resume.ROOT)}: {len(after)} files")


def hashes(checkout: Path) -> str:
    """What `sha256sum` prints for the weights, curves and answers of a run, the files in order."""
    files = sorted(file for pattern in FILES for file in checkout.glob(pattern))
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(checkout).as_posix()}\n" for file in files
    )


if __name__ == "__main__":
    typer.run(main)
