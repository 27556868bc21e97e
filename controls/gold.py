"""The judge: a reward model of the second half of the pairs, with a seed of its own.

    python -m controls.gold --help

With the seed of the reward model that is optimised it would begin with the same head, and share that head's whims.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from controls import options
from stages import rm
from stages.runtime import params
from stages.runtime.command import command


@command
def main(
    train: Annotated[Path, typer.Option(help="preference pairs (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="held-out preference pairs")],
    base: options.Base,
    to: options.To,
    log: options.Log,
    params_file: options.Params,
) -> None:
    """Train the reward model as the run does, with the next seed."""
    from ruamel.yaml import YAML

    seed = params.load(params_file, "seed", int)
    document = params.read(params_file) | {"seed": (seed + 1) % 2**32}
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "params.yaml"
        YAML().dump(document, own)
        rm.main(train, validate, base, to, log, own)


if __name__ == "__main__":
    typer.run(main)
