"""What would stop a run, or make it pointless, found before anything trains: parameters, data, model, and their fit.

    python -m stages.check

One line for each problem; without any, what the run will do and what is known of its cost.
"""

import contextlib
import importlib.util
import inspect
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import preprocess
from stages.models import base_model, tiny
from stages.parameters import SECTIONS
from stages.runtime import params
from stages.runtime.command import command, costs
from stages.runtime.errors import UserError

CONTEXT = ("max_position_embeddings", "seq_length", "max_sequence_length", "n_positions")
"""What a model's config.json calls the longest sequence that it reads, in tokens."""
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
    steps = planned(sections, samples(params_file))
    print(f"parameters, data and model fit; {', '.join(f'{stage}: {count} steps' for stage, count in steps.items())}")
    print(cost(steps, reports))


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
    model = sections["model"]
    for finder in (model_problems, layer_problems, length_problems):
        try:
            yield from finder(sections)
        except UserError as error:
            yield str(error)
    try:
        counts = samples(params_file)
    except (UserError, FileNotFoundError) as error:
        yield missing_data(sections["data"]) or str(error)
        return
    for stage, count in trained(sections, counts).items():
        epochs = sections[stage].num_train_epochs
        if round(count * epochs) < 1:
            yield f"{stage}.num_train_epochs: {epochs:g} of {count} samples is not one: raise it, or give more data"
    free, needed = shutil.disk_usage(Path.cwd()).free, 3 * weights(model)
    if free < needed:
        yield f"{free / GIB:.1f} GiB of disk are free, and the run writes about {needed / GIB:.1f} GiB: free space"


def missing_data(data: Any) -> str | None:
    """One line that names the data that are not there, and says what to do; None when they are."""
    files = [Path(data.dialogues, f"{part}_data.json") for part in ("train", "validate", "test")]
    absent = [str(file) for file in (*files, Path(data.preferences)) if not file.is_file()]
    if not absent:
        return None
    return (
        f"data.dialogues, data.preferences: {', '.join(absent)}: not there; `make data` fetches the COVID dialogues, "
        "data/README.md tells about the rest"
    )


def samples(params_file: Path) -> dict[str, Any]:
    """What `preprocess` makes of the data, into a folder that is thrown away: its counts."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        inspect.unwrap(preprocess.main)(Path(folder), Path(folder), params_file)
        found: dict[str, Any] = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
        return found


def trained(sections: dict[str, Any], counts: dict[str, Any]) -> dict[str, int]:
    """How many samples sft and rm train on."""
    both = counts["train"]["samples"] + counts["validate"]["samples"]
    found = {"sft": both - max(1, round(both * sections["sft"].dev_ratio)), "rm": counts["preferences"]["train"]}
    return {stage: count for stage, count in found.items() if count}  # without preferences there is no reward model


def planned(sections: dict[str, Any], counts: dict[str, Any]) -> dict[str, int]:
    """Optimizer steps of sft and rm, updates of ppo."""
    steps = {
        stage: -(-round(count * sections[stage].num_train_epochs) // sections[stage].batch_size)
        for stage, count in trained(sections, counts).items()
    }
    return steps | {"ppo": sections["ppo"].updates}


def model_problems(sections: dict[str, Any]) -> Iterator[str]:
    model = sections["model"]
    base_model.check_name(model)
    if model.name == base_model.TINY and (model.dtype != "float32" or model.quantization != "none"):
        yield "model.name: `tiny` is trained in float32: set model.dtype to float32 and model.quantization to none"
    if model.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        yield f"model.quantization: {model.quantization} needs bitsandbytes: `.venv/bin/pip install '.[quantization]'`"


def layer_problems(sections: dict[str, Any]) -> Iterator[str]:
    """Layers that LoRA is to be put on and that the model lacks. A model on the hub is not looked at."""
    listed = [stage for stage in ("sft", "rm", "ppo") if sections[stage].lora.target_modules != "all-linear"]
    model = sections["model"]
    if not listed or (model.name != base_model.TINY and not base_model.local_folder(model.name).is_dir()):
        return
    import torch

    with torch.device("meta"):  # no weights
        if model.name == base_model.TINY:
            architecture = sections["base"].architecture
            network = tiny.network(architecture, tiny.tokenizer([], architecture))
        else:
            network = base_model.Base(Path(), model, "", {}).skeleton()
    for stage in listed:
        try:
            sections[stage].lora.fit(network, stage)
        except UserError as error:
            yield str(error)


def length_problems(sections: dict[str, Any]) -> Iterator[str]:
    """Prompts with answers that are longer than the model can read."""
    context = context_of(sections)
    if context is None:
        return
    for stage, answer in (
        ("sft", "max_target_length"),
        ("rm", "max_target_length"),
        ("ppo", "max_response_length"),
        ("predict", "max_new_tokens"),
        ("evaluate", "max_target_length"),
    ):
        total = sections[stage].max_source_length + getattr(sections[stage], answer)
        if total > context:
            yield (
                f"{stage}.max_source_length + {stage}.{answer} is {total}, and the model reads at most {context} "
                "tokens: lower them"
            )


def context_of(sections: dict[str, Any]) -> int | None:
    """The longest sequence that the model reads, in tokens; None where its files do not say, or are not here."""
    model = sections["model"]
    if model.name == base_model.TINY:
        return int(sections["base"].architecture.max_position_embeddings)
    path = base_model.local_folder(model.name) / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    return next((config[name] for name in CONTEXT if isinstance(config.get(name), int)), None)


def weights(model: Any) -> int:
    """Bytes of a local folder's weights; 0 for a model that is not here."""
    return sum(file.stat().st_size for file in base_model.local_folder(model.name).glob("*.safetensors"))


def cost(steps: dict[str, int], reports: Path) -> str:
    """A forecast from the last run's cost: each stage at its pace, with as many steps as it would now have."""
    spent = costs()
    if missing := [stage for stage in steps if stage not in spent]:
        return f"no forecast of the time: {', '.join(missing)} did not run here yet"
    seconds = 0.0
    for stage, each in spent.items():
        path = reports / stage / "metrics.json"
        last = json.loads(path.read_text(encoding="utf-8")) if stage in steps and path.is_file() else {}
        before = last.get("steps") or last.get("updates")
        seconds += each["seconds"] * (steps[stage] / before if before else 1)
    peak = max(each["peak_mib"] for each in spent.values())
    return (
        f"at the last run's pace, with the same model and lengths: {seconds / 60:.0f} minutes for all stages, "
        f"{peak / 1024:.1f} GiB of memory"
    )


if __name__ == "__main__":
    typer.run(main)
