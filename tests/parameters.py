"""Whole parameter files for tests: the committed params.yaml, with a few values changed."""

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def document(changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The committed parameters with `changes`, a mapping of sections that names only what differs.

    Raises:
        KeyError: params.yaml has no such key, so a test can't change what no stage reads.
    """
    parameters = copy.deepcopy(_committed())
    _merge(parameters, changes)
    return parameters


def write(folder: Path, changes: Mapping[str, Any] = {}) -> Path:
    """Write `document(changes)` to params.yaml in the folder and return that file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(document(changes)), encoding="utf-8")
    return file


def flat(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value: `("sft.lora.r", 16)`, …"""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _merge(section: dict[str, Any], changes: Mapping[str, Any], above: str = "") -> None:
    for name, value in changes.items():
        if name not in section:
            raise KeyError(f"params.yaml has no key {above}{name}")
        if isinstance(section[name], dict) and isinstance(value, Mapping):
            _merge(section[name], value, f"{above}{name}.")
        else:
            section[name] = value


@functools.cache
def _committed() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
