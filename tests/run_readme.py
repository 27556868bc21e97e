"""Run every command of README.md and docs/*.md, line by line, in a fresh clone of the last commit.

    python tests/run_readme.py

Where a line trains, it trains the profile `smallest`, which the clone has for its default. A line that is not run is
listed with its reason from `SKIPPED`. A plain block (without a language) after commands shows what they print: each
line of it must have been printed, whatever the numbers are.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SKIPPED = {
    "make test": "it takes minutes; .ci/run does it",
    "CUDA_VISIBLE_DEVICES=": "needs a GPU",
    "COVID_DOCTOR_LAUNCH=": "needs several GPUs; tests/test_processes.py starts two processes on a CPU",
    "pip install": "needs a network",
    "make real-model": "needs a network, and a quarter of an hour; `make test-real` runs all of it",
    "ssh-keygen": "needs the reader's key",
    "transformers serve": "needs what the line above installs; it serves until it is stopped",
    "curl": "needs the server of the line above",
    "sbatch": "needs Slurm; tests/test_memory.py parses it",
}
"""How a line begins → why such a line is not run. `make docs` fails for an entry that no line begins with."""
ASKED = {"dvc gc": " --force"}
"""How a line begins that asks the reader for a yes → what says it here."""
TYPED = "我发烧三天了\n"
"""What a line finds on its standard input: one question, for the chat."""
LIMIT = 1800
"""Seconds for one line, and for the experiments that one line starts."""


class Block(NamedTuple):
    commands: list[str]
    shown: list[str]
    """What the document says that they print, together."""


class Done(NamedTuple):
    fault: str
    """Nothing, or what went wrong in a few words."""
    printed: str


def documents() -> list[Path]:
    """README.md, and what it leaves to docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The `sh` blocks of a document, without comments, each with the lines of a plain block that follows it.

    Where the paragraph before a plain block names a command, that one prints it.
    """
    found: list[Block] = []
    end = 0
    for match in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.S | re.M):
        paragraph = text[end : match.start()].strip().rpartition("\n\n")[2]
        end = match.end()
        language, block = match.groups()
        if language.strip() == "sh":
            found.append(Block(list(commands(block)), []))
        elif not language.strip():
            rows = [row for row in block.splitlines() if row.strip()]
            named = re.findall(r"`((?:make|dvc|python -m) [^`]+)`", paragraph)
            if named:
                found.append(Block(named[-1:], rows))
            elif found:
                found[-1].shown.extend(rows)
    return found


def commands(block: str) -> Iterator[str]:
    """The command lines of a block: a line that ends in a backslash goes on in the next; comments are left out."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        command = re.split(r"(?:^|\s+)#", line)[0].strip()
        if command:
            yield command


def skipped(command: str) -> str | None:
    """Why a line is not run; None for one that is."""
    return next((reason for start, reason in SKIPPED.items() if command.startswith(start)), None)


def shape(line: str) -> str:
    """A printed line without its numbers and their signs, commits, the names that DVC made up, and its spacing."""
    line = re.sub(r"\b[0-9a-f]{7}\b( \[[\w-]+\])?", "COMMIT", line)
    return " ".join(re.sub(r"[-+−]?\d+(\.\d+)?", "#", line).split())


class Reader:
    """Somebody who has a clone of the last commit, and types one line after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / "covid-doctor"
        self.at = self.clone
        """Where the next line is typed: the clone, or one that a line of the document has made and gone to."""
        self.hub = folder / "hub.git"
        """What the clone calls origin: a line that pushes must not reach the checkout that is tested."""
        self.left_running: list[int] = []
        """Process groups of lines that have ended and left something in the background."""
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
            "PATH": os.pathsep.join([str(self.clone / ".venv" / "bin"), os.environ["PATH"]]),
            "TMPDIR": str(folder / "tmp"),
            "COVID_DOCTOR_WORK": str(self.clone / ".work"),
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": "",
            **{f"GIT_{who}_NAME": "reader" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "reader@localhost" for who in ("AUTHOR", "COMMITTER")},
        }

    def arrive(self) -> None:
        """Clone; the clone's default is the profile `smallest`, its environment this one, its cache its own."""
        (self.folder / "tmp").mkdir()
        git = ("git", "-c", "init.defaultBranch=main")
        subprocess.run([*git, "init", "--quiet", "--bare", str(self.hub)], check=True)
        subprocess.run([*git, "push", "--quiet", str(self.hub), "HEAD:refs/heads/main"], check=True, cwd=ROOT)
        subprocess.run([*git, "clone", "--quiet", str(self.hub), str(self.clone)], check=True)
        self.furnish(self.clone)
        for line in (
            "python -m stages.profile smallest > /dev/null",
            "sed -i 's/portable: true/portable: false/' params.yaml",  # which no profile in float16 can lie over
            "cp params.yaml profiles/default.yaml",
            f"dvc config --quiet --local cache.dir '{self.clone}/.dvc/cache'",
            "git commit --quiet --all --message 'smallest by default'",
        ):
            if (done := self.type(line)).fault:
                raise SystemExit(f"{line}: {done.fault}\n{done.printed}")

    def furnish(self, clone: Path) -> None:
        """Give a clone this environment in place of the one that `make setup` would fetch."""
        environment = clone / ".venv"
        environment.mkdir()
        for entry in Path(sys.prefix).iterdir():
            if entry.name != "installed":
                (environment / entry.name).symlink_to(entry)
        (environment / "installed").touch()

    def type(self, command: str) -> Done:
        """Run one line in a shell. Its output goes to a file: what it leaves in the background may hold on to that."""
        sure = next((yes for start, yes in ASKED.items() if command.startswith(start)), "")
        with tempfile.TemporaryFile(dir=self.folder) as printed, tempfile.TemporaryFile(dir=self.folder) as typed:
            typed.write(TYPED.encode())
            typed.seek(0)
            process = subprocess.Popen(
                ["bash", "-c", self.named(command) + sure], cwd=self.at, env=self.environment, stdin=typed,
                stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(LIMIT)
                fault = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                fault = f"not done after {LIMIT} s"
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 0)  # asks only whether anything of the line's group is still there
                self.left_running.append(process.pid)
            printed.seek(0)
            output = printed.read().decode(errors="replace")
            if "git commit" in command and re.search(r"^nothing (added )?to commit", output, re.M):
                fault = ""  # an earlier document's run had the same bytes
            return Done(fault, output)

    def named(self, command: str) -> str:
        """The line with what stands for the reader's own: two experiments for NAME and OTHER, URL, the folder /data."""
        command = re.sub(r"\bURL\b", str(self.hub), command).replace("/data/store", str(self.folder / "data-store"))
        if not re.search(r"\b(NAME|OTHER)\b(?!=)", command):
            return command
        listed = "dvc queue status" if command.startswith("dvc queue") else "dvc exp list"
        names = re.findall(r"^\s*[0-9a-f]{7}\s+(?:\[([\w-]+)\]|([\w-]+))", self.type(listed).printed, re.M)
        found = [name or other for name, other in names]
        return re.sub(r"\bOTHER\b", found[-1], re.sub(r"\bNAME\b(?!=)", found[0], command)) if found else command

    def go_to_a_clone(self, command: str) -> Done:
        """`git clone URL FOLDER && cd FOLDER`: the lines that follow are typed in there."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        self.at = folder
        done = self.type(command)
        if not done.fault:
            self.at = folder / command.split()[-1]
            self.furnish(self.at)
        return done

    def wait_for_queue(self) -> Done:
        """Wait for the experiments that `dvc queue start` runs behind the reader's back."""
        until = time.monotonic() + LIMIT
        while True:
            fault, status = self.type("dvc queue status")
            if not fault and not re.search(r"\b(Queued|Running)\b", status):
                return Done("an experiment failed" if "Failed" in status or "Success" not in status else "", status)
            if time.monotonic() > until:
                return Done(f"experiments not done after {LIMIT} s", status)
            time.sleep(5)

    def leave(self) -> str:
        """Stop the queue's workers and what else a line left running, and delete everything; says what is left."""
        if self.clone.exists():
            self.type("dvc queue stop --kill")
        for group in self.left_running:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for _ in range(30):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return ""
            time.sleep(1)  # a worker that is ending still writes
        return f"{self.folder} could not be deleted"


def follow(reader: Reader, document: Path) -> int:
    """Type every line of a document and say what came of each; the number of lines that are not true."""
    failed = 0
    reader.at = reader.clone
    for block in blocks(document.read_text(encoding="utf-8")):
        printed = ""
        for command in block.commands:
            if reason := skipped(command):
                print(f"not run: {command} ({reason})", flush=True)
                continue
            done = (reader.go_to_a_clone if re.search(r"^git clone .*&& cd \S+$", command) else reader.type)(command)
            if "dvc queue start" in command and not done.fault:
                done = reader.wait_for_queue()
            printed += done.printed
            failed += bool(done.fault)
            tail = f"FAILED, {done.fault}: {command}\n{done.printed[-2000:]}"
            print(tail if done.fault else f"ok: {command}", flush=True)
        shapes = {shape(row) for row in printed.splitlines()}
        for row in block.shown if printed else []:
            if shape(row) not in shapes:
                failed += 1
                print(f"FAILED, not printed by the lines above: {row}", flush=True)
    return failed


def main() -> None:
    reader = Reader(Path(tempfile.mkdtemp(prefix="readme-")))
    failed = 0
    try:
        reader.arrive()
        for document in documents():
            print(f"\n{document.relative_to(ROOT)}", flush=True)
            failed += follow(reader, document)
    finally:
        left = reader.leave()
        if left:
            failed += 1
            print(f"FAILED, {left}")
    sys.exit(f"{failed} lines are not true" if failed else 0)


if __name__ == "__main__":
    main()
