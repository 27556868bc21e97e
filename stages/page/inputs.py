"""Files of the other stages → one checked `Run`; whatever is missing or does not fit is one line that names it."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.metrics.definitions import BASELINE, METRICS, MODELS
from stages.runtime.errors import UserError
from stages.runtime.params import read as read_yaml

PAIR = (
    "question", "chosen", "rejected", "chosen_length", "rejected_length", "chosen_other_question",
    "rejected_other_question", "chosen_of_other",
)  # fmt: skip
PROBES = ("doctor", "ppo_other_question", "sft_unrelated_appended", "ppo_cut", "kl")
CLOSING = ("sft_closing_appended", "closing")
"""Probes that need a usual closing sentence, which not all data have."""
TRAINED = ("base", "sft", "rm", "ppo")
"""The stages that leave a folder with their curves, metrics and environment."""

TRAIN = ("step", "epoch", "loss", "grad_norm", "learning_rate")
EVAL = ("step", "epoch", "eval_loss")
PPO = (
    "step", "score", "score_std", "reward", "kl", "kl_k3", "kl_coef", "entropy", "policy_loss", "value_loss", "loss",
    "clip_fraction", "approx_kl", "ratio", "grad_norm", "learning_rate", "eos_rate", "response_length", "repetition",
    "length_score_correlation", "explained_variance",
)  # fmt: skip
CURVES = {
    "base": ("base/curve.csv", TRAIN),
    "base_eval": ("base/eval_curve.csv", EVAL),
    "sft": ("sft/curve.csv", TRAIN),
    "sft_eval": ("sft/eval_curve.csv", EVAL),
    "rm": ("rm/curve.csv", (*TRAIN, "accuracy", "margin")),
    "rm_eval": ("rm/eval_curve.csv", (*EVAL, "eval_accuracy", "eval_margin")),
    "ppo": ("ppo/curve.csv", PPO),
}

Column = list[float | None]
Columns = dict[str, Column]


class Sample(NamedTuple):
    """One test question with the doctor's answer and each model's."""

    history: list[list[str]]
    instruction: str
    label: str
    dialogue: int
    predicts: dict[str, str]
    displayed: dict[str, str]
    """Those answers that are shown in another form than they were written in: punctuation that a tokenizer changed."""


class Run(NamedTuple):
    """All that the report tells about."""

    samples: list[Sample]
    scores: dict[str, Columns]
    """Model or baseline → by a metric's key one number per sample, None where nothing is known of it."""
    pairs: dict[str, list[float]]
    """Held-out preference pairs: `PAIR` → one number per pair. Empty without a reward model, as are the next two."""
    probes: dict[str, list[float]]
    """`PROBES`, and `CLOSING` where there is one → one number per sample."""
    closing: str
    """The closing sentence that the probes appended; "" for none."""
    curves: dict[str, Columns]
    documents: dict[str, Any]
    """`lineage`, `data` and `train_<stage>`: what the stages say about themselves."""
    environments: dict[str, dict[str, Any]]
    """Stage → what it ran on, where it recorded that."""
    params: dict[str, Any]

    @property
    def models(self) -> list[str]:
        """All three, or without preferences base and sft."""
        return [model for model in MODELS if model in self.scores]

    @property
    def dialogues(self) -> list[int]:
        return [sample.dialogue for sample in self.samples]


def read(reports: Path, params: Path) -> Run:
    """Read every file that a run leaves, a whole one or one without preferences, as the lineage of `evaluate` tells.

    Raises:
        UserError: a file breaks off, lacks a key, or does not belong to the same samples as its neighbour.
        FileNotFoundError: a file is missing.
    """
    evaluation = reports / "evaluation"
    lineage = _object(evaluation / "lineage.json")
    whole = "reward" in lineage
    models = [model for model in MODELS if whole or model != "ppo"]
    trained = [stage for stage in TRAINED if whole or stage in models]
    samples = _samples(reports / "answers", models)
    scores = {model: _scores(evaluation / f"{model}.jsonl", len(samples), whole) for model in (*models, BASELINE)}
    for sample, (_, row) in zip(samples, _lines(evaluation / f"{BASELINE}.jsonl", ("predict",)), strict=True):
        sample.predicts[BASELINE] = row["predict"]
    for model in models:
        for sample, (_, row) in zip(samples, _lines(evaluation / f"{model}.jsonl", ()), strict=True):
            if "displayed" in row:
                sample.displayed[model] = row["displayed"]
    closing = str(_object(evaluation / "probes.json", ("closing",))["closing"]) if whole else ""
    probes = PROBES + (CLOSING if closing else ())
    return Run(
        samples=samples,
        scores=scores,
        pairs=_table(evaluation / "pairs.jsonl", PAIR) if whole else {},
        probes=_table(evaluation / "probes.jsonl", probes, len(samples)) if whole else {},
        closing=closing,
        curves={
            name: _curve(reports / path, columns)
            for name, (path, columns) in CURVES.items()
            if Path(path).parent.name in trained
        },
        documents={
            "lineage": lineage,
            "data": _object(reports / "data" / "metrics.json"),
            **{f"train_{stage}": _object(reports / stage / "metrics.json") for stage in trained},
        },
        environments={
            stage: _object(path)
            for stage in (*trained, "evaluation")
            if (path := reports / stage / "environment.json").is_file()
        },
        params=read_yaml(params),
    )


def known(column: Column) -> list[float]:
    """A column in which no value is unknown, such as that of the rewards, for those who can't do without one."""
    return [value for value in column if value is not None]


AGAIN = "run `dvc repro` so that both come from one run"


def _samples(folder: Path, models: Sequence[str]) -> list[Sample]:
    found: list[Sample] = []
    for model in models:
        path = folder / f"{model}.jsonl"
        count = 0
        for line, row in _lines(path, ("history", "instruction", "label", "predict")):
            dialogue = row.get("dialogue")
            # not known of which: each sample then counts as a dialogue of its own
            question = (row["history"], row["instruction"], row["label"], count if dialogue is None else dialogue)
            if model == MODELS[0]:
                found.append(Sample(*question, {}, {}))
            elif count >= len(found) or found[count][:4] != question:
                raise UserError(f"{path}, line {line}: not the sample that {MODELS[0]}.jsonl has there; {AGAIN}")
            found[count].predicts[model] = row["predict"]
            count += 1
        if count < len(found):
            raise UserError(f"{path}: {count} lines, but {MODELS[0]}.jsonl has {len(found)}; {AGAIN}")
    if not found:
        raise UserError(f"{folder / f'{MODELS[0]}.jsonl'}: no samples")
    return found


def _scores(path: Path, samples: int, rewarded: bool) -> Columns:
    """One column per metric of single answers; an optional metric that is in no row has none."""
    rows = list(_lines(path, ()))
    _check_count(path, len(rows), samples)
    columns: Columns = {}
    for metric in METRICS:
        optional = metric.optional or (metric.key == "reward" and not rewarded)
        if metric.whole_set or (optional and not any(metric.key in row for _, row in rows)):
            continue
        columns[metric.key] = []
        for line, row in rows:
            if metric.key not in row and not optional:
                raise UserError(f"{path}, line {line}: key `{metric.key}` is missing; {AGAIN}")
            known = metric.key in row
            columns[metric.key].append(_number(path, line, metric.key, row[metric.key]) if known else None)
    return columns


def _table(path: Path, keys: tuple[str, ...], samples: int | None = None) -> dict[str, list[float]]:
    """One column per key, of finite numbers; as many as there are samples, where a line is a sample."""
    columns: dict[str, list[float]] = {key: [] for key in keys}
    for line, row in _lines(path, keys):
        for key in keys:
            columns[key].append(_number(path, line, key, row[key]))
    _check_count(path, len(columns[keys[0]]), samples)
    return columns


def _check_count(path: Path, count: int, samples: int | None) -> None:
    if samples is not None and count != samples:
        raise UserError(f"{path}: {count} lines for {samples} test samples; {AGAIN}")
    if not count:
        raise UserError(f"{path}: no lines; {AGAIN}")


def _number(path: Path, line: int, key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{path}, line {line}: `{key}` must be a finite number, not {value!r}")
    return float(value)


def _lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows(path.read_text(encoding="utf-8"), str(path)), start=1):
        for key in keys:
            if key not in row:
                raise UserError(f"{path}, line {number}: key `{key}` is missing; {AGAIN}")
        yield number, row


def rows(text: str, where: str) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines; UserError names the line that is none."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):  # which splits at no other sign
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}, line {number}: not JSON: {error}; {AGAIN}") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}, line {number}: expected an object; {AGAIN}")
        yield row


def _object(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON: {error}; {AGAIN}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object at the top")
    for key in keys:
        if key not in found:
            raise UserError(f"{path}: key `{key}` is missing; {AGAIN}")
    return found


def _curve(path: Path, columns: tuple[str, ...]) -> Columns:
    """The named columns."""
    found = curve(path.read_text(encoding="utf-8"), str(path))
    for name in columns:
        if name not in found:
            raise UserError(f"{path}, line 1: column `{name}` is missing; {AGAIN}")
    if path.parent.name == "ppo" and not found["step"]:
        raise UserError(f"{path}: no rows, so PPO made no update; {AGAIN}")
    return {name: found[name] for name in columns}


def curve(text: str, where: str) -> Columns:
    """The columns of a CSV file; an empty cell and a number that is not finite become None, a gap in the drawing."""
    reader = csv.DictReader(text.splitlines())
    found: Columns = {name: [] for name in reader.fieldnames or ()}
    for row in reader:
        for name, column in found.items():
            try:
                number = float(row[name] or "nan")
            except ValueError:
                raise UserError(f"{where}, line {reader.line_num}: `{name}` is not a number: {row[name]!r}") from None
            column.append(number if math.isfinite(number) else None)
    return found
