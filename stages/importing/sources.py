"""A file, a folder or a data set on the hub → its records, each with its place."""

import csv
import io
import re
import tempfile
from pathlib import Path
from typing import Any

from stages.runtime.errors import UserError
from stages.text import json_files

Records = list[tuple[str, Any]]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ALL = "all"
"""`--split all`: every split of a data set."""


def read(source: str, split: str | None) -> Records:
    """The records of a JSON, JSON-lines, CSV, TSV or Parquet file, of a folder that `datasets` reads, or of a hub id.

    Raises:
        UserError: it is missing, damaged or empty, or has several splits and `split` names none.
    """
    path = Path(source)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # a name of 300 letters, or with a NUL
        raise UserError(f"{source[:80]}: can't be read: {error}") from None
    if is_file and path.suffix.lower() in (".csv", ".tsv"):
        records = _read_table(path)
    elif is_file and path.suffix.lower() != ".parquet":
        records = json_files.read_records(path)
    elif is_file or is_folder or HUB_ID.fullmatch(source):
        records = _read_datasets(path, source, split)
    else:
        raise UserError(f"{source}: no such file or folder, and no id `owner/name` of a data set on the hub")
    if not records:
        raise UserError(f"{source}: has no record")
    return records


def _read_table(path: Path) -> Records:
    csv.field_size_limit(2**24)
    text = io.StringIO(json_files.read_text(path), newline="")
    rows = csv.DictReader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    records: Records = []
    try:
        names = rows.fieldnames or []
        if len(set(names)) < len(names):
            raise UserError(f"{path}: a column name appears twice: {', '.join(names)[:200]}")
        for row in rows:
            if None in row or None in row.values():
                raise UserError(f"{path}, line {rows.line_num}: has not as many cells as the first line has names")
            records.append((f"line {rows.line_num}", dict(row)))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: not CSV: {error}") from None
    return records


def _read_datasets(path: Path, source: str, split: str | None) -> Records:
    if (path / "train_data.json").is_file():
        raise UserError(
            f"{source}: a folder of the project's own form: set data.dialogues to it; or import one of its files"
        )
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        try:
            if path.is_file():
                found = datasets.load_dataset("parquet", data_files={"train": str(path)}, cache_dir=cache)
            elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                found = datasets.load_from_disk(str(path))
            else:
                found = datasets.load_dataset(source, cache_dir=cache)
        except (OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
            cause = error.__cause__ or error
            raise UserError(f"{source}: can't be read: {' '.join(str(cause).split())[:300]}") from None
        splits = dict(found) if isinstance(found, dict) else {"train": found}
        if split is None and len(splits) > 1:
            raise UserError(f"{source}: has the splits {', '.join(splits)}; name one: --split {next(iter(splits))}")
        if split not in (None, ALL, *splits):
            raise UserError(f"{source}: has no split {split}; there are: {', '.join(splits)}")
        chosen = splits if split in (None, ALL) else {split: splits[split]}
        return [(f"{name} row {index}", row) for name, part in chosen.items() for index, row in enumerate(part)]
