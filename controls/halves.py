"""The preference pairs in two halves without a common question: one trains what is compared, the other its judge.

python -m controls.halves --help
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.runtime import atomic
from stages.runtime.command import command
from stages.text import held_out, records

NAMES = ("proxy", "gold")


@command
def main(
    pairs: Annotated[Path, typer.Option(help="preference pairs to train on (JSON lines)")],
    to: Annotated[Path, typer.Option(help="folder of proxy.jsonl and gold.jsonl")],
) -> None:
    """Write every other question's pairs into each half."""
    halves = dict(zip(NAMES, held_out.parts(records.read_pairs(pairs)), strict=True))
    with atomic.folder(to) as folder:
        for name, half in halves.items():
            atomic.write_jsonl(folder / f"{name}.jsonl", (pair._asdict() for pair in half))
    print(", ".join(f"{name}: {len(half)} pairs" for name, half in halves.items()))


if __name__ == "__main__":
    typer.run(main)
