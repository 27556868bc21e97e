"""Run what the README shows, line by line, in a fresh clone of the last commit.

    python tests/run_readme.py

Where a line trains, it trains the profile `smallest`, which the clone has for its default. A line that is not run
stands in `SKIPPED` with its reason. Where the README shows what a block prints, each line of it must have been
printed, with any numbers.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SKIPPED = {
    "make test": "what .ci/run does; it takes minutes",
    "CUDA_VISIBLE_DEVICES=": "needs a GPU",
    "COVID_DOCTOR_LAUNCH=": "needs several GPUs; tests/test_processes.py starts two processes on a CPU",
    "pip install": "needs a network",
    "transformers serve": "needs what the line above installs; it serves until it is stopped",
    "curl": "needs the server of the line above",
}
"""How a line of the README begins → why such a line is not run here."""
ASKED = {"dvc gc": " --force"}
"""How a line begins that asks the reader for a yes → what says it here."""
TYPED = "我发烧三天了\n"
"""What a line finds on its standard input: one question, for the chat."""
LIMIT = 600
"""Seconds for one line."""


class Block(NamedTuple):
    commands: list[str]
    shown: list[str]
    """What the README says that they print, together."""


def blocks(text: str) -> list[Block]:
    """The `sh` blocks of a document, without comments, each with the lines of a plain block that follows it.

    Where the paragraph before a plain block names a command in the line, that one prints it.
    """
    found: list[Block] = []
    end = 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        paragraph = text[end : match.start()].strip().rpartition("\n\n")[2]
        end = match.end()
        language, block = match.groups()
        rows = [row for row in block.splitlines() if row.strip()]
        if language == "sh":
            found.append(Block([re.split(r"\s+#", row)[0].strip() for row in rows], []))
        elif not language:
            named = re.findall(r"`((?:make|dvc|python -m) [^`]+)`", paragraph)
            found.append(Block(named[-1:], rows)) if named else found[-1].shown.extend(rows)
    return found


def shape(line: str) -> str:
    """A printed line without its numbers, the names that DVC made up, and its spacing."""
    line = re.sub(r"\b[0-9a-f]{7} \[[\w-]+\]", "EXPERIMENT", line)
    return " ".join(re.sub(r"-?\d+(\.\d+)?", "#", line).split())


def clone(to: Path) -> None:
    """Clone the last commit; its default is the profile `smallest`, its environment this one, its cache its own."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(to)], check=True)
    environment = to / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != "installed":
            (environment / entry.name).symlink_to(entry)
    (environment / "installed").touch()
    for command in (
        [sys.executable, "-m", "stages.profile", "smallest"],
        ["cp", "params.yaml", "profiles/default.yaml"],
        [sys.executable, "-m", "dvc", "config", "--local", "cache.dir", str(to / ".dvc" / "cache")],
    ):
        subprocess.run(command, cwd=to, check=True, stdout=subprocess.DEVNULL)
    commit(to, "smallest by default")


def commit(folder: Path, message: str) -> None:
    reader = ["-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    subprocess.run(["git", *reader, "commit", "-qam", message], cwd=folder, check=True)


def named(command: str, folder: Path, environment: dict[str, str]) -> str:
    """The line with the names of two experiments in place of NAME and OTHER."""
    if not re.search(r"\bNAME\b(?!=)", command):
        return command
    _, names = run("dvc exp list --name-only", folder, environment)
    one, other, *_ = names.split()
    return re.sub(r"\bOTHER\b", other, re.sub(r"\bNAME\b", one, command))


def run(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run the line in a shell: its exit code and what it printed."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, input=TYPED, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def finish_queue(folder: Path, environment: dict[str, str]) -> str:
    """Wait for the experiments that `dvc queue start` runs behind the reader's back; their final state."""
    for _ in range(LIMIT // 5):
        _, status = run("dvc queue status", folder, environment)
        if not re.search(r"\b(Queued|Running)\b", status):
            break
        time.sleep(5)
    run("dvc queue stop", folder, environment)
    return status


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="readme-"))
    copy = folder / "covid-doctor"
    environment = os.environ | {
        "PATH": os.pathsep.join([str(copy / ".venv" / "bin"), os.environ["PATH"]]),
        "COVID_DOCTOR_WORK": str(copy / ".work"),
        "DVC_SITE_CACHE_DIR": str(copy / ".dvc" / "site"),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": "",
    }
    failed = 0
    try:
        clone(copy)
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")):
            printed = ""
            for command in block.commands:
                reason = next((why for start, why in SKIPPED.items() if command.startswith(start)), None)
                if reason:
                    print(f"not run: {command} ({reason})", flush=True)
                    continue
                sure = next((yes for start, yes in ASKED.items() if command.startswith(start)), "")
                code, output = run(named(command, copy, environment) + sure, copy, environment)
                if "dvc queue start" in command:
                    output = finish_queue(copy, environment)
                    code = code or (not re.search(r"\bSuccess\b", output) or "Failed" in output)
                printed += output
                failed += bool(code)
                if command == "make repro" and not code and run("git status --short -uno", copy, environment)[1]:
                    commit(copy, "a run")  # experiments are compared with it
                verdict = f"FAILED, exit code {code}: {command}\n{output[-2000:]}" if code else f"ok: {command}"
                print(verdict, flush=True)
            shapes = {shape(row) for row in printed.splitlines()}
            for row in block.shown:
                if shape(row) not in shapes:
                    failed += 1
                    print(f"NOT PRINTED by the lines above: {row}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(f"{failed} lines of the README are not true" if failed else 0)


if __name__ == "__main__":
    main()
