"""A model in a local folder: which of its files decide what it answers, and whether its weights are whole."""

import hashlib
import json
import sys
from pathlib import Path

from stages.runtime.errors import UserError

WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"
NOTES = ("", ".md", ".csv", ".py")
"""Endings of files that no loader reads: a model's licence, card, curves and recipe."""
VOCABULARIES = ("vocab*.txt", "merges*.txt", "dict*.txt")
"""The text files that tokenizers read; any other is a note too."""


def files(folder: Path, own_code: bool) -> list[Path]:
    """The files that decide what the model answers, `base.json` of this project apart.

    Args:
        own_code: whether the folder's own Python files may run, and so decide too.
    """

    def decides(file: Path) -> bool:
        if file.name == "base.json" or file.name.startswith("."):
            return False
        if file.suffix == ".py":
            return own_code
        if file.suffix == ".txt":
            return any(file.match(pattern) for pattern in VOCABULARIES)
        return file.suffix not in NOTES

    return sorted(file for file in folder.iterdir() if file.is_file() and decides(file))


def sizes(folder: Path, own_code: bool) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in files(folder, own_code)}


def content_hash(folder: Path, own_code: bool) -> str:
    if (size := sum(sizes(folder, own_code).values())) > 2**30:
        print(f"{folder}: reading {size / 2**30:.1f} GiB once, to record what the model is", file=sys.stderr)
    digest = hashlib.sha256()
    for path in files(folder, own_code):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_weights(folder: Path) -> None:
    """Read the header of each file of weights, which says how long the file must be; quick for any size.

    Raises:
        UserError: a file is missing, cut off, not of this format, or outside of the folder.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / INDEX
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model.name: {index}: not an index of weights ({error}); fetch it again") from None
    if outside := sorted(name for name in named if Path(name).name != name):
        raise UserError(f"model.name: {index} names {outside[0]}, which is not a file of this folder")
    for file in sorted({folder / name for name in named} | set(folder.glob(WEIGHTS))):
        if not file.is_file():
            raise UserError(f"model.name: {file}: no such file of weights; fetch it again")
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise UserError(f"model.name: {file}: not a whole file of weights ({error}); fetch it again") from None
