"""params.yaml → one typed, frozen form per section.

The form of a section stands in the file of the stage that reads it, so that a new knob of one stage leaves the
others as they were.
"""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stages.runtime.errors import UserError

Form = TypeVar("Form")


def load(file: Path, section: str, form: type[Form]) -> Form:
    """Read `section` of `file` into the dataclass `form`; for a scalar section give `int`, `str`, … as the form.

    Raises:
        UserError: the file is missing or no YAML; the section or a key of it is missing, unknown, or of the wrong
            type; or the form's own `__post_init__` refuses a value. The message names the key.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such parameters file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or section not in document:
        raise UserError(f"{file}: section `{section}` is missing")
    return _typed(document[section], form, section, file)


def above_zero(form: Any, *names: str) -> None:
    """For a form's `__post_init__`: raises ValueError for the first of these fields that is 0 or below."""
    for name in names:
        if getattr(form, name) <= 0:
            raise ValueError(f"{name} must be above 0")


def _typed(value: Any, kind: Any, key: str, file: Path) -> Any:
    if dataclasses.is_dataclass(kind):
        return _form(value, kind, key, file)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for choice in (a for a in arguments if a is not type(None)):
            try:
                return _typed(value, choice, key, file)
            except UserError:
                continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_typed(item, arguments[0], f"{key}[{i}]", file) for i, item in enumerate(value))
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    hint = ""
    if kind is float and isinstance(value, str):
        hint = " (YAML reads 1e-4 as text: write 1.0e-4)"
    raise UserError(f"{file}: `{key}` must be {_describe(kind)}, not {value!r}{hint}")


def _form(value: Any, form: Any, key: str, file: Path) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{file}: `{key}` must be a section of keys, not {value!r}")
    hints = typing.get_type_hints(form)
    for name in value:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"; did you mean `{key}.{near[0]}`?" if near else f"; known keys: {', '.join(hints)}"
            raise UserError(f"{file}: unknown key `{key}.{name}`{hint}")
    for name in hints:
        if name not in value:
            raise UserError(f"{file}: key `{key}.{name}` is missing")
    fields = {name: _typed(value[name], hints[name], f"{key}.{name}", file) for name in hints}
    try:
        return form(**fields)
    except ValueError as error:
        raise UserError(f"{file}: `{key}`: {error}") from None


def _describe(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list, each {_describe(arguments[0])}"
    return names.get(kind, str(kind))
