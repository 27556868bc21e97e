"""params.yaml → one typed, frozen section per stage.

A section's class is defined in the file of the stage that reads it, so a new parameter of one stage leaves the others
unchanged. It declares each parameter once: type and bounds, default, and one line below it that says what it does.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stages.runtime.errors import UserError

Kind = TypeVar("Kind")

# Types that several sections share. An upper bound is far above what is useful: it catches a slip of the keyboard.
Tokens = Annotated[int, Field(ge=1, le=2**20)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Epochs = Annotated[float, Field(gt=0, le=10_000)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
WarmupRatio = Annotated[float, Field(ge=0, lt=1)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
"""What NumPy and torch both take."""
GradientNorm = Annotated[float, Field(gt=0, le=10**6)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]  # near zero the logits overflow


class Section(BaseModel):
    """A section of params.yaml. A parameter's declaration: `name: type with bounds = default`, then its docstring.

    A check that needs several parameters is a `model_validator(mode="after")` that raises ValueError.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, checked."""
        return type(self)(**(dict(self) | changes))


def load(file: Path, section: str, kind: type[Kind]) -> Kind:
    """Read `section` of `file` as `kind`: a Section, or `int` for a seed, also one in a section (`data.seed`).

    Raises:
        UserError: the file is missing or no YAML; the section or a key of it is missing (a default would be a
            parameter that DVC does not see), unknown, of the wrong type or out of bounds. The message names the key.
    """
    value: Any = read(file)
    above = ""
    for part in section.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{file}: {'key' if above else 'section'} `{above}{part}` is missing")
        value, above = value[part], f"{above}{part}."
    return check(value, section, kind, file)


def check(value: Any, section: str, kind: type[Kind], file: Path) -> Kind:
    """The value of a section as `kind`; raises UserError as `load` does."""
    missing = next(_missing(value, section, kind), None)
    try:
        found: Any = TypeAdapter(Seed if kind is int else kind).validate_python(value)
    except ValidationError as error:
        if not missing or error.errors()[0]["type"] != "value_error":  # else its default may be what does not fit
            raise UserError(f"{file}: {_message(error, section, kind)}") from None
    if missing:
        raise UserError(f"{file}: key `{missing}` is missing")
    return found  # type: ignore[no-any-return]


def read(file: Path) -> dict[str, Any]:
    """The file's sections, by the rules of YAML 1.2, as DVC reads and writes them: `3e-05` is a number."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such parameters file") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{file}: not valid YAML: nested too deeply") from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:  # by a tag and a wrong value
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict):
        raise UserError(f"{file}: must consist of sections with keys")
    return document


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for an undeclared key, with the key that was probably meant."""
    section, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, known := list(known), n=1)
    wanted = f"{section}.{near[0]}" if near and section else near[0] if near else None
    return f"unknown key `{key}`; " + (f"did you mean `{wanted}`?" if wanted else f"known keys: {', '.join(known)}")


EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text",
    "string_too_long": "a text of at most {max_length} characters",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
    "literal_error": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "model_type": "a section of keys",
    "invalid_key": "a text",
}
"""pydantic's kinds of error → what goes after `must be`."""


def _message(error: ValidationError, section: str, kind: Any) -> str:
    """The first of the errors, in one line; of a list that is one choice of several, its wrong item."""
    errors = error.errors(include_url=False)
    located = [_locate(section, each["loc"], kind) for each in errors]
    key, owner, optional = max((each for each in located if each[0].startswith(located[0][0])), key=lambda e: len(e[0]))
    same = [each for each, place in zip(errors, located, strict=True) if place[0] == key]
    first = same[0]
    if first["type"] == "extra_forbidden":
        return unknown_key(key, owner.model_fields)
    if first["type"] == "value_error":
        return f"`{key}`: {first['ctx']['error']}"
    expected = [EXPECTED.get(each["type"], each["msg"]).format(**each.get("ctx", {})) for each in same]
    return f"`{key}` must be {' or '.join(expected)}{' or null' * optional}, not {_shown(first['input'])}"


def _locate(section: str, path: Sequence[int | str], kind: Any) -> tuple[str, Any, bool]:
    """The key at the end of pydantic's `path`, the Section that holds it, and whether it may be null.

    Besides keys and list indices, the path contains names of union members, which are not keys.
    """
    key, owner, optional, inner = section, kind, False, kind
    for part in path:
        if isinstance(part, int):
            key += f"[{part}]"
        elif _is_section(inner):
            key, owner = f"{key}.{part}", inner
            inner = inner.model_fields[part].annotation if part in inner.model_fields else None
            optional = type(None) in get_args(inner)
    return key, owner, optional


def _missing(value: Any, key: str, kind: Any) -> Iterator[str]:
    if _is_section(kind) and isinstance(value, dict):
        for name, field in kind.model_fields.items():
            if name not in value:
                yield f"{key}.{name}"
            else:
                yield from _missing(value[name], f"{key}.{name}", field.annotation)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of that many digits"
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
