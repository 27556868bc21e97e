"""Answers, facts and numbers as JSON lines: one row for each test sample."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.metrics import definitions
from stages.metrics.answer import Answer
from stages.metrics.probes import Text
from stages.runtime.errors import UserError
from stages.text import encoding, json_files


def read(path: Path, count: int, stage: str) -> list[dict[str, Any]]:
    """The rows of a file that `stage` wrote; raises UserError where there are not `count` of them."""
    rows = [row for _, row in json_files.read_lines(path)]
    if len(rows) != count:
        raise UserError(f"{path}: {len(rows)} rows for {count} test samples; run `dvc repro` to {stage} again")
    return rows


def read_facts(data: Path, count: int) -> Sequence[dict[str, Any] | None]:
    """What is known of each test question; nothing where the data bring no facts."""
    path = data / "facts.jsonl"
    return read(path, count, "preprocess") if path.is_file() else [None] * count


def measured(
    texts: Sequence[Text],
    references: Sequence[str],
    tokens: Sequence[int],
    facts: Sequence[dict[str, Any] | None],
    **columns: Sequence[float],
) -> Iterator[dict[str, Any]]:
    """The text metrics of each answer and, beside them, its number in each of the `columns`."""
    for at, (text, reference, count, known) in enumerate(zip(texts, references, tokens, facts, strict=True)):
        numbers = definitions.measure(Answer(text.text, reference, count, text.ended, known))
        yield _rounded(numbers | {name: column[at] for name, column in columns.items()})


def shown(tokenizer: Any, texts: Sequence[Text], with_text: bool) -> Iterator[dict[str, str]]:
    """How each text is displayed, where that differs from the text; with the text itself if it stands nowhere else."""
    for text in texts:
        displayed = encoding.displayed(tokenizer, text.text)
        row = {"predict": text.text} if with_text else {}
        yield row | ({"displayed": displayed} if displayed != text.text else {})


def of_columns(columns: Mapping[str, Sequence[float]]) -> Iterator[dict[str, Any]]:
    """Columns of equal length as rows."""
    for values in zip(*columns.values(), strict=True):
        yield _rounded(dict(zip(columns, values, strict=True)))


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in numbers.items()}
