"""Several seeds of the workspace's setting, and what they say together.

    make seeds SEEDS="1 2 3 4 5"
    make seeds SEEDS="1 2 3 4 5" JOBS=2     # two at a time

Each is an experiment of DVC's queue, `seed-1`, `seed-2`, …; all hold out the same data, which `data.seed` decides. DVC
takes the results of stages that ran before from its cache.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from stages import compare
from stages.metrics.definitions import MODELS
from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError

WAITING = ("Queued", "Running")
POLL = 10
"""Seconds between two looks at the queue."""
PATIENCE = 6
"""Looks at a queue that waits for a worker before another one is started."""


@command
def main(
    seeds: Annotated[list[int], typer.Argument(min=0, help="the seeds")],
    to: Annotated[Path | None, typer.Option(help="also write the table there (Markdown)")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="how many train at a time")] = 1,
    language: Annotated[str, typer.Option(help="en or zh, of the table")] = "en",
) -> None:
    """Queue an experiment for each seed, run them, and print their table once all have ended."""
    compare.check_language(language)
    seeds = list(dict.fromkeys(seeds))
    names = [name_of(seed) for seed in seeds]
    if running := [name for name, status in compare.queue().items() if name in names and status == "Running"]:
        raise UserError(f"{running[0]} is running: wait for it, or end it with `dvc queue kill {running[0]}`")
    listed = dvc("exp", "list", "--name-only").split() + list(compare.queue())
    if old := sorted(set(listed) & set(names)):  # of the same commit; what has not changed since is in the cache
        dvc("exp", "remove", *old)
    data, parent = outside_git(), git("rev-parse", "HEAD")
    for seed in seeds:
        dvc(*queue_line(seed, data))
    dvc("queue", "start", "--jobs", str(jobs))
    try:
        wait(names, jobs)
    except KeyboardInterrupt:
        print("\nthe queue goes on; see `make watch` and `dvc queue status`", file=sys.stderr)
        raise SystemExit(130) from None
    text = table({name: git("rev-parse", "--verify", "--quiet", ref_of(name, parent)) for name in names}, language)
    print(text, end="")
    if to:
        atomic.write_text(to, text)


def name_of(seed: int) -> str:
    return f"seed-{seed}"


def ref_of(name: str, parent: str) -> str:
    """Where DVC keeps the experiment that started from this commit; another commit may have one of the same name."""
    return f"refs/exps/{parent[:2]}/{parent[2:]}/{name}"


def queue_line(seed: int, copied: Sequence[str] = ()) -> list[str]:
    """The arguments of `dvc` that queue the workspace with this seed, and with copies of these files and folders."""
    line = ["exp", "run", "--queue", "--name", name_of(seed), "--set-param", f"seed={seed}"]
    return line + [word for path in copied for word in ("--copy-paths", path)]


def outside_git() -> list[str]:
    """The files and folders of the data that Git does not hold: a queued experiment, a clone, would miss them."""
    data = params.read(Path("params.yaml"))["data"]
    listed = git("status", "--porcelain", "--ignored", "-z", "--", data["dialogues"], data["preferences"]).split("\0")
    return [line[3:].rstrip("/") for line in listed if line.startswith(("??", "!!"))]


def git(*arguments: str) -> str:
    """What `git` prints; nothing where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False, text=True)
    return "" if done.returncode else done.stdout.removesuffix("\n")


def dvc(*arguments: str) -> str:
    """What `dvc` prints. Not to a pipe: the queue's worker would keep it open for as long as it works."""
    import tempfile

    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], stdout=out, stderr=err, check=False)
        out.seek(0)
        err.seek(0)
        if done.returncode:
            raise UserError(f"`dvc {' '.join(arguments)}` failed: {err.read().strip()[-300:]}")
        return out.read()


def wait(names: Sequence[str], jobs: int) -> None:
    """Return once none of the experiments waits or runs; each that ends is told.

    A worker of DVC's can end while others still wait, most of all on a busy machine: it is then started again.
    """
    left, idle = set(names), 0
    while left:
        statuses = compare.queue()
        ended = {name for name in left if statuses.get(name) not in WAITING}
        for name in sorted(ended):
            print(f"{name}: {statuses.get(name, 'gone').lower()}", file=sys.stderr)
        left -= ended
        states = [statuses.get(name) for name in left]
        idle = idle + 1 if "Queued" in states and states.count("Running") < jobs else 0
        if idle == PATIENCE:
            dvc("queue", "start", "--jobs", str(jobs))
            idle = 0
        if left:
            time.sleep(POLL)


def table(commits: Mapping[str, str], language: str, reports: str = "reports") -> str:
    """Markdown: of each model mean ± standard deviation over the seeds, their differences, and each seed's values.

    Args:
        commits: of each experiment, by name; none where it failed.

    Raises:
        UserError: all failed.
    """
    from stages.page import compare_markdown, compare_settings, compare_tables
    from stages.page.i18n import Sentence, say

    failed = [
        Sentence("compare.failed", {"name": name, "reason": "it left no commit, see `dvc queue logs`"})
        for name in commits
        if not commits[name]
    ]
    if len(failed) == len(commits):
        raise UserError("no seed ended well; `dvc queue logs NAME` tells why")
    settings, left_out = [], []
    for model in MODELS:
        runs, notes = compare.read([f"{commit}:{model}" for commit in commits.values() if commit], reports)
        compare_settings.same_questions(runs)
        settings += compare_settings.group(
            [run._replace(name=say(Sentence(f"model.{model}"), language)) for run in runs]
        )
        left_out = notes
    compared = compare_settings.compare(settings)
    tables = [compare_tables.metrics(compared), compare_tables.each_run(compared)]
    texts = [compare_markdown.table(each, language) for each in tables if each]
    notes = [*compare_settings.caveats(compared), *failed, *left_out]
    return "\n\n".join([*texts, *(say(note, language) for note in notes)]) + "\n"


if __name__ == "__main__":
    typer.run(main)
