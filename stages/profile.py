"""Switch params.yaml to a named profile: the defaults, with a small overlay of profiles/ on top; comments stay.

python -m stages.profile --help
"""

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import check
from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError

DEFAULT = "default"
"""The profile that holds every key: what params.yaml is as committed."""


@command
def main(
    name: Annotated[
        str | None, typer.Argument(help="a profile: the name of a file of the profiles folder, without .yaml")
    ] = None,
    profiles: Annotated[Path, typer.Option(help="folder of the profiles")] = Path("profiles"),
    params_file: Annotated[Path, typer.Option("--params", help="parameters to switch")] = Path("params.yaml"),
) -> None:
    """Switch the parameters to a profile, print what changed, and what a run with it would lack.

    `default` gives the committed parameters back. Without a name the profiles are listed.
    """
    if name is None:
        print("\n".join(names(profiles)))
        return
    before, after = apply(name, profiles, params_file)
    changes = sorted(key for key in before | after if before.get(key) != after.get(key))
    for key in changes:
        print(f"{key}: {before.get(key, '(absent)')} → {after.get(key, '(gone)')}")
    if not changes:
        print(f"{params_file} already is the profile `{name}`")
    for line in check.problems(params_file):
        print(f"next: {line}")


def names(profiles: Path) -> list[str]:
    return sorted(path.stem for path in profiles.glob("*.yaml"))


def apply(name: str, profiles: Path, config: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give each key of `config` the value of the profile, or else the default: what it held before does not matter.

    Returns:
        Every key with its value (`{"sft.lora.r": 8, …}`), before and after.

    Raises:
        UserError: no such profile; a key of it is unknown, or is a section in one place and a value in the other.
    """
    overlay_file = profiles / f"{name}.yaml"
    if not overlay_file.is_file():
        raise UserError(f"no profile `{name}` in {profiles}; there are: {', '.join(names(profiles))}")
    document, defaults = read(config), read(profiles / f"{DEFAULT}.yaml")
    before = dict(keys(document))
    if name == DEFAULT:
        atomic.write_bytes(config, overlay_file.read_bytes())
        return before, dict(keys(defaults))
    overlay = read(overlay_file)
    check_keys(overlay, defaults, overlay_file)
    # The defaults' own keys come first, so that a profile after another leaves nothing of that one behind.
    for source in (defaults, overlay):
        merge(document, source)
    text = io.StringIO()
    yaml().dump(document, text)
    atomic.write_text(config, text.getvalue())
    return before, dict(keys(document))


def yaml() -> Any:
    """A reader and writer that keeps comments, order, quotes and the way that numbers are written."""
    from ruamel.yaml import YAML

    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 4096  # never break a line that was whole
    round_trip.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return round_trip


def read(file: Path) -> Any:
    """A YAML file that holds keys, with its comments; UserError names the file and what is wrong."""
    params.read(file)
    return yaml().load(file.read_text(encoding="utf-8"))


def check_keys(overlay: Any, defaults: Any, file: Path, above: str = "") -> None:
    """Raise UserError for a key of the overlay that the defaults do not have."""
    for name, value in overlay.items():
        key = f"{above}{name}"
        if name not in defaults:
            raise UserError(f"{file}: {params.unknown_key(key, defaults)}")
        if isinstance(value, dict) != isinstance(defaults[name], dict):
            kind = "a section of keys" if isinstance(defaults[name], dict) else "a value"
            raise UserError(f"{file}: `{key}` must be {kind}")
        if isinstance(value, dict):
            check_keys(value, defaults[name], file, f"{key}.")


def merge(document: Any, source: Any) -> None:
    """Write the values of `source` into `document`, key by key; a value that is the same is left as it stands."""
    for name, value in source.items():
        if isinstance(value, dict) and isinstance(document.get(name), dict):
            merge(document[name], value)
        elif name not in document or document[name] != value or type(document[name]) is not type(value):
            document[name] = value
            if (comments := document.ca.items.get(name)) is not None:
                comments[3] = None  # what stood before a list's first item: ruamel would swallow a later key's line end


def keys(document: Any, above: str = "") -> list[tuple[str, Any]]:
    """Every key with its value, sections written with dots."""
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            found += keys(value, f"{above}{name}.")
        else:
            found.append((f"{above}{name}", value))
    return found


if __name__ == "__main__":
    typer.run(main)
