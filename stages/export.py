"""Merge a stack into one folder that plain transformers and vLLM load, with a model card.

python -m stages.export --model ppo --to covid-doctor-ppo
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.models import base_model, stack
from stages.page.lock import Lock
from stages.predict import PredictConfig
from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.serving import model_card, model_names
from stages.serving.model_names import Name

LOCK = Path("dvc.lock")


@command
def main(
    to: Annotated[Path, typer.Option(help="folder to write; new or empty")],
    model: Annotated[Name, typer.Option(help="the model to export")] = Name.ppo,
    base: Annotated[Path, typer.Option(help="folder of the base model")] = Path("models/base"),
    sft: Annotated[Path, typer.Option(help="folder of the sft adapter")] = Path("models/sft"),
    ppo: Annotated[Path, typer.Option(help="folder of the ppo adapter")] = Path("models/ppo"),
    params_file: Annotated[Path, typer.Option("--params", help="parameters, for the card and how to decode")] = Path(
        "params.yaml"
    ),
    scores: Annotated[Path, typer.Option(help="the report's table of scores, for the card")] = Path(
        "reports/plots/models.csv"
    ),
    evaluation: Annotated[
        Path, typer.Option(help="folder of the evaluation: which weights these scores are of")
    ] = Path("reports/evaluation"),
) -> None:
    """Merge a stack of adapters into a model of its own."""
    to = to.resolve()
    check_free(to)
    config = params.load(params_file, "predict", PredictConfig)
    parameters = params.read(params_file)
    frozen_base = base_model.read(base)
    folders = model_names.resolve(model, frozen_base, sft, ppo)
    adapters = [stack.lineage(folder) for folder in folders]
    measured = model_card.measured(scores, evaluation, model, frozen_base, adapters)
    if measured is None or decoded_otherwise(model, parameters):
        measured = None
        print(
            f"note: {scores} has no scores of these weights and this `predict`, so the card has none; run `dvc repro`",
            file=sys.stderr,
        )

    from stages.serving import merged_model, provenance

    with atomic.folder(to) as folder:
        merged_model.write(frozen_base, folders, config, config.max_new_tokens, folder)
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        card = model_card.text(model, frozen_base, adapters, parameters, measured, model_type, to.name)
        atomic.write_text(folder / "README.md", card)
        kinds = ("dialogues", "preferences") if model is Name.ppo else ("dialogues",) if folders else ()
        provenance.write(folder, to.name, frozen_base, folders, [parameters["data"][kind] for kind in kinds])
    native = (
        "; transformers loads it only after `stages.models.chatglm.register()`"
        if model_type == model_card.CHATGLM
        else ""
    )
    print(f"{to}: written; its README.md says how to use and serve it{native}")


def decoded_otherwise(model: Name, parameters: dict[str, Any]) -> bool:
    """Whether the answers that were measured came from another section `predict` than the one that is exported."""
    recorded = params.read(LOCK) if LOCK.is_file() else {}
    stage = f"predict@{model}"
    return stage in recorded.get("stages", {}) and Lock(recorded).unfinished([stage], parameters) is not None


def check_free(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to: {to} exists and is not an empty folder; name another, or delete it")


if __name__ == "__main__":
    typer.run(main)
