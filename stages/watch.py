"""Follow the stages that train, in this checkout and in the experiments of its queue: `make watch`, or

python -m stages.watch --once
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from stages.runtime import live, resume
from stages.runtime.command import command

SHOWN = ("loss", "eval_loss", "score", "kl", "response_length", "entropy", "accuracy", "learning_rate")
STALE = 3600
"""Seconds after which a row is stale: its stage has ended, or was killed."""


@command
def main(
    once: Annotated[bool, typer.Option("--once", help="print the newest rows and end")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="how often to look")] = 2.0,
) -> None:
    """Print each new row of every stage that trains, and when it will be done; Ctrl-C ends."""
    seen: dict[Path, live.Row] = {}
    try:
        while True:
            for path, rows in newest():
                if seen.get(path) != rows[-1]:
                    seen[path] = rows[-1]
                    print(line(path, rows), flush=True)
            if once:
                break
            time.sleep(seconds)
    except KeyboardInterrupt:
        return
    if not seen:
        print("no stage trains here")


def newest() -> Iterator[tuple[Path, list[live.Row]]]:
    """The files that a stage has written lately, with their rows."""
    copies = resume.ROOT / resume.TEMPORARY.strip("/")
    for folder in (
        resume.own_root() / "live",
        *copies.glob("*/.work/live"),  # the queue's
        *copies.glob("standalone/*/.work/live"),  # those of `dvc exp run --temp`
    ):
        for path in sorted(folder.glob("*.jsonl")):
            rows = live.read(path)
            if rows and time.time() - rows[-1].time < STALE:
                yield path, rows


def line(path: Path, rows: list[live.Row]) -> str:
    last, left = rows[-1], live.seconds_left(rows)
    values = " ".join(f"{name} {last.values[name]:.4g}" for name in SHOWN if name in last.values)
    if last.done >= last.total:
        end = "trained"
    elif left is None:
        end = ""
    else:
        end = f"done in {left / 60:.0f} min, at {time.strftime('%H:%M', time.localtime(last.time + left))}"
    return f"{path.stem:6} {last.done}/{last.total}  {values}  {end}".rstrip()


if __name__ == "__main__":
    typer.run(main)
