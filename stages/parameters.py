"""All parameters as a document: what each does, its default and its bounds, from where it is declared.

python -m stages.parameters > docs/parameters.md
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from stages.base import BaseConfig
from stages.models.base_model import ModelConfig
from stages.predict import PredictConfig
from stages.preference.config import RmConfig
from stages.preprocess import DataConfig
from stages.report import ReportConfig
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.scoring.scorer import EvaluateConfig
from stages.sft import SftConfig

SECTIONS: dict[str, Any] = {
    "seed": int,
    "model": ModelConfig,
    "data": DataConfig,
    "base": BaseConfig,
    "sft": SftConfig,
    "rm": RmConfig,
    "ppo": PpoConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
}
"""The sections of params.yaml, in its order."""

HEAD = """# Parameters

Every parameter of [params.yaml](../params.yaml), with its default. This file is written by
`python -m stages.parameters > docs/parameters.md` from the declarations in `stages/`.

`make profile NAME=…` switches to one of the sets in [profiles/](../profiles), `dvc exp run -S sft.lora.r=8` changes one
parameter for one experiment, and `make check` says what is wrong with a set before anything trains.

## seed

| parameter | default | allowed | what it does |
|---|---|---|---|
| `seed` | `42` | a whole number, ≥ 0, < 4294967296 | Every random draw but those of `data.seed`. |
"""
TYPES = {int: "a whole number", float: "a number", str: "a text", bool: "`true` or `false`", type(None): "`null`"}
SIGNS = {"Gt": "> {0.gt}", "Ge": "≥ {0.ge}", "Lt": "< {0.lt}", "Le": "≤ {0.le}"}


def main() -> None:
    print(document(), end="")


def document() -> str:
    """The Markdown text."""
    text = HEAD
    for section, kind in SECTIONS.items():
        if kind is not int:
            text += f"\n## {section}\n\n| parameter | default | allowed | what it does |\n|---|---|---|---|\n"
            text += "".join(f"| {' | '.join(row)} |\n" for row in rows(kind, kind()))
    return text


def rows(kind: type[params.Section], defaults: params.Section, above: str = "") -> Iterator[tuple[str, ...]]:
    """Name, default, what is allowed and what it does, of each parameter and of those in its sections."""
    for name, field in kind.model_fields.items():
        value = getattr(defaults, name)
        if isinstance(value, params.Section):
            yield from rows(type(value), value, f"{above}{name}.")
        else:
            about = " ".join((description(kind, name) or "").split()).replace("|", "\\|")
            yield f"`{above}{name}`", f"`{shown(value)}`", allowed(field.annotation, field.metadata), about


def description(kind: type[params.Section], name: str) -> str | None:
    """The line below the declaration; a class that only changes the default leaves it to the one that it inherits."""
    sections = (base for base in kind.__mro__ if issubclass(base, params.Section) and name in base.model_fields)
    declared = (base.model_fields[name].description for base in sections)
    return next(filter(None, declared), None)


def allowed(kind: Any, bounds: Any) -> str:
    if get_origin(kind) is None:
        limits = [SIGNS[type(each).__name__].format(each) for each in bounds if type(each).__name__ in SIGNS]
        return ", ".join([TYPES[kind], *limits])
    choices = get_args(kind)
    if hasattr(kind, "__metadata__"):  # Annotated
        return allowed(choices[0], choices[1].metadata)
    if get_origin(kind) is tuple:
        return "a list of texts"
    if all(not isinstance(choice, type) and get_origin(choice) is None for choice in choices):  # Literal
        return " or ".join(f"`{shown(choice)}`" for choice in choices)
    return " or ".join(allowed(choice, bounds) for choice in choices)


def shown(value: Any) -> str:
    """As YAML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
