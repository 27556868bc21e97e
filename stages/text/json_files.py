"""JSON and JSON-lines files → their records; whatever is wrong with one is a line that names the file and the place.

Stricter than `json.load`: a key that appears twice, NaN, a lone surrogate (a text that no file can hold) and a list
that is nested too deeply are errors. More lenient about one thing: a byte order mark at the start is skipped.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.runtime.errors import UserError

WHITESPACE = re.compile(r"[ \t\r\n]*")


class _Broken(ValueError):
    """Why a record can't be read."""


def read_text(path: Path) -> str:
    """A text file in UTF-8; raises UserError when it is none, or missing, or a folder."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is a {'folder' if path.is_dir() else 'device'}, not a file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is in UTF-16; convert it: `iconv -f UTF-16 -t UTF-8`")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte {error.start}); if it is in GB18030, as old Chinese files are: "
            "`iconv -f GB18030 -t UTF-8`"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    text = read_text(path)
    value, end = _decode(text, WHITESPACE.match(text).end(), str(path))  # type: ignore[union-attr]
    if not isinstance(value, dict) or text[end:].strip():
        raise UserError(f"{path}: expected one JSON object")
    return value


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a JSON-lines file, each with the number of its line; empty lines are skipped.

    Lines end with `\\n` alone: U+2028 and its like are part of a text.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            value, end = _decode(line, WHITESPACE.match(line).end(), place)  # type: ignore[union-attr]
            if line[end:].strip():
                raise UserError(f"{place}: not JSON: more text behind the record")
            yield number, value


def read_records(path: Path) -> list[tuple[str, Any]]:
    """The records of a JSON list or of a JSON-lines file, each with its place: `record 0`, `line 1`."""
    text = read_text(path)
    start = WHITESPACE.match(text).end()  # type: ignore[union-attr]
    if start == len(text):
        raise UserError(f"{path}: is empty")
    if text[start] == "[":
        try:
            return list(_list_items(path, text))
        except UserError:
            if not (next(iter(text[start:].split("\n"))).rstrip().endswith("]") and "\n[" in text):
                raise  # else each line may be a list of its own
    try:
        return [(f"line {number}", value) for number, value in read_lines(path)]
    except UserError:
        if text[start] == "{" and "\n" in text[start:].rstrip():
            value, end = _decode(text, start, str(path))
            if not text[end:].strip():
                keys = ", ".join(str(key)[:20] for key in list(value)[:8])
                raise UserError(
                    f"{path}: one object (keys: {keys}), not a list of records or a record a line"
                ) from None
        raise


def _list_items(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    def skip(position: int) -> int:
        return WHITESPACE.match(text, position).end()  # type: ignore[union-attr]

    def broken(position: int, expected: str) -> UserError:
        found = repr(text[position : position + 20]) if position < len(text) else "the end of the file"
        line = text.count("\n", 0, position) + 1
        return UserError(f"{path}, line {line}: expected {expected}, found {found}")

    position = skip(0)
    if text[position : position + 1] != "[":
        raise broken(position, "a JSON list")
    position, index = skip(position + 1), 0
    while text[position : position + 1] != "]" or index:
        value, position = _decode(text, position, f"{path}, record {index}")
        yield f"record {index}", value
        position, index = skip(position), index + 1
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            raise broken(position, f"`,` or `]` after record {index - 1}")
        position = skip(position + 1)
    if skip(position + 1) != len(text):
        raise broken(skip(position + 1), "nothing after the list")


def _decode(text: str, position: int, place: str) -> tuple[Any, int]:
    """The value that starts at `position`, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, position)
        if _SURROGATE.search(text, position, end):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise UserError(f"{place}: not JSON: {error.msg} ({at})") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply") from None
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise UserError(f"{place}: a text with half a character, \\u{ord(character):04x}; write it whole") from None
    except ValueError as error:
        reason = error if isinstance(error, _Broken) else "a number of too many digits"
        raise UserError(f"{place}: {reason}") from None
    return value, end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Broken(f"the key {json.dumps(key[:40], ensure_ascii=False)} appears twice in one object")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise _Broken(f"{name} is no JSON number")


def _float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _constant(digits[:20])


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
