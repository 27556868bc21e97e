"""Start a stage, in one process or through a launcher of several.

    python -m stages.launch sft --train data/processed/train.jsonl …

The launcher is a line such as `torchrun --standalone --nproc-per-node 2`. It stands in the variable COVID_DOCTOR_LAUNCH
or, where that is not set, in the file `.launch` of the checkout: there a queue's worker finds it too, and a temporary
copy of the checkout. No shell has a part in it, so it works from every one; quotes are read as sh reads them.
"""

import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

from stages.runtime import resume
from stages.runtime.errors import UserError

VARIABLE = "COVID_DOCTOR_LAUNCH"
FILE = ".launch"


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m stages.launch STAGE [the stage's options]")
    stage, *arguments = sys.argv[1:]
    module = stage if "." in stage else f"stages.{stage}"  # a control is `controls.<name>`
    try:
        line, source = launcher()
        words = command(line, source)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    if not words:
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    os.environ[VARIABLE] = line  # the stage records it with its environment
    os.execv(words[0], [*words, "-m", module, *arguments])


def launcher() -> tuple[str, str]:
    """The launcher's line, empty where there is none, and where it stands."""
    if VARIABLE in os.environ:
        return os.environ[VARIABLE].strip(), VARIABLE
    file = resume.checkout() / FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "", str(file)
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) > 1:
        raise UserError(f"{file}: must be one line, the launcher; it has {len(lines)}")
    return "".join(lines), str(file)


def command(line: str, source: str) -> list[str]:
    """The words of the line, the first as the path of a program: beside this interpreter, or in the PATH."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"{source}: {error}: {line}") from None
    if not words:
        return []
    program = shutil.which(words[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise UserError(f"{source}: there is no program `{words[0]}`; correct the line, or leave it empty")
    return [program, *words[1:]]


if __name__ == "__main__":
    main()
