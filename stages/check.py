"""What would stop a run, or make it pointless, found before anything trains: parameters, data, model, and their fit.

    python -m stages.check

One line for each problem; without any, what the run will do and what is known of its cost.
"""

import contextlib
import inspect
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import preprocess
from stages.parameters import SECTIONS
from stages.preflight import forecast, model
from stages.runtime import params
from stages.runtime.command import command
from stages.runtime.errors import UserError, printable

GIB = 2**30


@command
def main(
    params_file: Annotated[Path, typer.Option("--params", help="parameters")] = Path("params.yaml"),
    reports: Annotated[Path, typer.Option(help="folder of the last run's metrics")] = Path("reports"),
) -> None:
    """Check all that a run needs, and forecast what it costs."""
    found = list(problems(params_file))
    if found:
        for line in found:
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1)
    sections = {name: params.load(params_file, name, kind) for name, kind in SECTIONS.items()}
    steps = forecast.planned(sections, samples(params_file))
    print(f"parameters, data and model fit; {', '.join(f'{stage}: {count} steps' for stage, count in steps.items())}")
    print(forecast.cost(steps, reports))


def problems(params_file: Path) -> Iterator[str]:
    """A line for each problem; the later ones are looked for once the parameters by themselves are right."""
    document = params.read(params_file)
    sections: dict[str, Any] = {}
    for name in [*SECTIONS, *(name for name in document if name not in SECTIONS)]:
        try:
            if name not in SECTIONS:
                raise UserError(f"{params_file}: {params.unknown_key(str(name), SECTIONS)}")
            sections[name] = params.load(params_file, name, SECTIONS[name])
        except UserError as error:
            yield str(error)
    if len(sections) < len(SECTIONS):
        return
    yield from model.problems(sections)
    try:
        counts = samples(params_file)
    except (UserError, OSError) as error:
        yield missing_data(sections["data"]) or printable(str(error))
        return
    for stage, count in forecast.trained(sections, counts).items():
        epochs = sections[stage].num_train_epochs
        if round(count * epochs) < 1:
            yield f"{stage}.num_train_epochs: {epochs:g} of {count} samples is not one: raise it, or give more data"
    free, needed = shutil.disk_usage(Path.cwd()).free, 3 * model.weights(sections["model"])
    if free < needed:
        yield f"{free / GIB:.1f} GiB of disk are free, and the run writes about {needed / GIB:.1f} GiB: free space"


def missing_data(data: Any) -> str | None:
    """One line that names the data that are not there, and says what to do; None when they are."""
    files = [Path(data.dialogues, f"{part}_data.json") for part in ("train", "validate", "test")]
    # `Path.is_file` raises for a name that no file can have
    absent = [str(file) for file in (*files, Path(data.preferences)) if not os.path.isfile(file)]  # noqa: PTH113
    if not absent:
        return None
    names = ", ".join(name if len(name) <= 100 else f"{name[:99]}…" for name in absent)
    return printable(
        f"data.dialogues, data.preferences: {names}: not there; `make data` fetches the COVID dialogues, "
        "data/README.md tells about the rest"
    )


def samples(params_file: Path) -> dict[str, Any]:
    """What `preprocess` makes of the data, into a folder that is thrown away: its counts."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        inspect.unwrap(preprocess.main)(Path(folder), Path(folder), params_file)
        found: dict[str, Any] = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    typer.run(main)
