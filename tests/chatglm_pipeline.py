"""Run the commands of dvc.yaml, one after the other in this process, and the export: `python chatglm_pipeline.py`.

The current folder has the params.yaml. One process, since each would import torch and transformers anew.
"""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer
import yaml

from stages import export
from stages.serving.model_names import Name


def commands(graph: Path, params: dict) -> Iterator[list[str]]:
    """The command line of each stage, in the order of dvc.yaml, where every stage follows those that it needs."""
    for stage in yaml.safe_load(graph.read_text(encoding="utf-8"))["stages"].values():
        for key, item in stage.get("foreach", {"": {}}).items():
            values = {"key": key, **{f"item.{name}": value for name, value in item.items()}}
            values |= {f"data.{name}": value for name, value in params["data"].items()}
            line = re.sub(
                r"(?<!\\)\$\{([\w.]+)\}", lambda name, v=values: str(v[name[1]]), stage.get("do", stage)["cmd"]
            )
            yield shlex.split(line)


def main() -> None:
    root, params = Path(__file__).parents[1], Path("params.yaml")
    for _, _, module, *arguments in commands(root / "dvc.yaml", yaml.safe_load(params.read_text(encoding="utf-8"))):
        if module == "stages.launch":
            module = f"stages.{arguments.pop(0)}"
        app = typer.Typer()
        app.command()(importlib.import_module(module).main)
        app(arguments, standalone_mode=False)
    models = Path("models")
    export.main(Path("doctor"), Name.ppo, models / "base", models / "sft", models / "ppo", params)


main()
