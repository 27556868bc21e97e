"""Run the smallest profile on this machine and compare its bytes with those in Git.

    python -m stages.reproduce --help

The profile `smallest` computes with kernels that are the same on every x86-64 processor with AVX2 (`model.portable`).
PPO's last digits nevertheless differ between AMD and Intel (docs/reproducibility.md): its files have a hash of each.
Any other difference means other code, other data or other versions of libraries.
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
    add: Annotated[bool, typer.Option("--add", help="after --update elsewhere: add those of this make of CPU")] = False,
) -> None:
    """Run the last commit with the profile `smallest` in a fresh clone, and compare hashes of what it leaves."""
    expected = resume.ROOT / "profiles" / f"{PROFILE}.sha256"
    folder = Path(tempfile.mkdtemp(prefix="reproduce-"))
    try:
        verify.run(folder / PROFILE, PROFILE, ["evaluate"])
        found = hashes(folder / PROFILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    name = expected.relative_to(resume.ROOT)
    if update or add:
        kept = expected.read_text(encoding="utf-8").splitlines() if add else []
        lines = sorted({*kept, *found.splitlines()}, key=lambda line: line.split("  ")[::-1])
        atomic.write_text(expected, "".join(f"{line}\n" for line in lines))
        print(f"{name}: written")
    elif others := unknown(found, expected.read_text(encoding="utf-8")):
        raise UserError(
            f"other bytes than {name} has: {', '.join(others)}. If code or data were meant to change them: "
            "`make reproduce UPDATE=1`"
        )
    else:
        print(f"the same bytes as {name}: {len(found.splitlines())} files")


def unknown(found: str, known: str) -> list[str]:
    """The files of which `found` has another hash than each that `known` has, and those that only one of them has."""
    new, old = set(found.splitlines()), set(known.splitlines())
    missing = {line.split("  ")[1] for line in old} - {line.split("  ")[1] for line in new}
    return sorted(missing | {line.split("  ")[1] for line in new - old})


def hashes(checkout: Path) -> str:
    """What `sha256sum` prints for the weights, curves and answers of a run, the files in order."""
    files = sorted(file for pattern in FILES for file in checkout.glob(pattern))
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(checkout).as_posix()}\n" for file in files
    )


if __name__ == "__main__":
    typer.run(main)
