"""Files of the other stages → one checked `Run`; whatever is missing or does not fit is one line that names it."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime.errors import UserError
from stages.runtime.params import read as read_yaml

MODELS = ("base", "sft", "ppo")
SCORES = ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "response_length", "response_tokens", "eos")
METRICS = (*SCORES[:6], "distinct-2", "eos_rate")
PAIR = ("chosen", "rejected", "chosen_length", "rejected_length")
DOCUMENTS = ("lineage", "data", "train_base", "train_sft", "train_rm", "train_ppo")

TRAIN = ("step", "epoch", "loss", "grad_norm", "learning_rate")
EVAL = ("step", "epoch", "eval_loss")
PPO = (
    "step", "score", "score_std", "reward", "kl", "kl_k3", "kl_coef", "entropy", "policy_loss", "value_loss", "loss",
    "clip_fraction", "approx_kl", "ratio", "grad_norm", "learning_rate", "eos_rate", "response_length", "repetition",
    "length_score_correlation", "explained_variance",
)  # fmt: skip
CURVES = {
    "base": TRAIN,
    "base_eval": EVAL,
    "sft": TRAIN,
    "sft_eval": EVAL,
    "rm": (*TRAIN, "accuracy", "margin"),
    "rm_eval": (*EVAL, "eval_accuracy", "eval_margin"),
    "ppo": PPO,
}

Columns = dict[str, list[float | None]]


class Sample(NamedTuple):
    """One test question with the doctor's answer and each model's."""

    history: list[list[str]]
    instruction: str
    label: str
    predicts: dict[str, str]


class Run(NamedTuple):
    """All that the report tells about."""

    samples: list[Sample]
    scores: dict[str, dict[str, list[float]]]
    """Model, score name → one number per sample; `reward` is the reward model's."""
    pairs: dict[str, list[float]]
    """Held-out preference pairs: `PAIR` → one number per pair."""
    metrics: dict[str, dict[str, Any]]
    curves: dict[str, Columns]
    documents: dict[str, Any]
    params: dict[str, Any]
    defaults: dict[str, Any] | None


def read(
    predictions: Path, scores: Path, metrics: Path, curves: Path, params: Path, defaults: Path | None = None
) -> Run:
    """Read every file that a whole run leaves.

    Raises:
        UserError: a file breaks off, lacks a key, or does not stand for the same samples as its neighbour.
        FileNotFoundError: a file is missing.
    """
    samples = _samples(predictions)
    rewards = _table(scores / "reward.jsonl", MODELS, len(samples))
    mean_rewards = _object(metrics / "reward.json", (*MODELS, "ci95"))
    measured = {model: _object(metrics / f"{model}.json", (*METRICS, "ci95")) for model in MODELS}
    for model in MODELS:
        measured[model]["reward"] = mean_rewards[model]
        if model in mean_rewards["ci95"]:
            measured[model]["ci95"]["reward"] = mean_rewards["ci95"][model]
    return Run(
        samples=samples,
        scores={
            model: _table(scores / f"{model}.jsonl", SCORES, len(samples)) | {"reward": rewards[model]}
            for model in MODELS
        },
        pairs=_table(scores / "rm.jsonl", PAIR),
        metrics=measured,
        curves={name: _curve(curves / f"{name}.csv", columns) for name, columns in CURVES.items()},
        documents={name: _object(metrics / f"{name}.json") for name in DOCUMENTS},
        params=read_yaml(params),
        defaults=read_yaml(defaults) if defaults else None,
    )


AGAIN = "run `dvc repro` so that both come from one run"


def _samples(folder: Path) -> list[Sample]:
    found: list[Sample] = []
    for model in MODELS:
        path = folder / f"{model}.jsonl"
        count = 0
        for line, row in _lines(path, ("history", "instruction", "label", "predict")):
            question = (row["history"], row["instruction"], row["label"])
            if model == MODELS[0]:
                found.append(Sample(*question, {}))
            elif count >= len(found) or found[count][:3] != question:
                raise UserError(f"{path}, line {line}: not the sample that {MODELS[0]}.jsonl has there; {AGAIN}")
            found[count].predicts[model] = row["predict"]
            count += 1
        if count < len(found):
            raise UserError(f"{path}: {count} lines, but {MODELS[0]}.jsonl has {len(found)}; {AGAIN}")
    if not found:
        raise UserError(f"{folder / f'{MODELS[0]}.jsonl'}: no samples")
    return found


def _table(path: Path, keys: tuple[str, ...], samples: int | None = None) -> dict[str, list[float]]:
    """One column per key, of finite numbers; as many as there are samples, where the lines stand for those."""
    columns: dict[str, list[float]] = {key: [] for key in keys}
    for line, row in _lines(path, keys):
        for key in keys:
            if not isinstance(row[key], (int, float)) or not math.isfinite(row[key]):
                raise UserError(f"{path}, line {line}: `{key}` must be a finite number, not {row[key]!r}")
            columns[key].append(float(row[key]))
    count = len(columns[keys[0]])
    if samples is not None and count != samples:
        raise UserError(f"{path}: {count} lines for {samples} test samples; {AGAIN}")
    if not count:
        raise UserError(f"{path}: no lines; {AGAIN}")
    return columns


def _lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON: {error}; {AGAIN}") from None
            lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
            if lacking:
                raise UserError(f"{path}, line {number}: key `{lacking[0]}` is missing; {AGAIN}")
            yield number, row


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
    """The named columns; an empty cell and a number that is not finite become None, a gap in the drawing."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for name in columns:
            if name not in (reader.fieldnames or ()):
                raise UserError(f"{path}, line 1: column `{name}` is missing; {AGAIN}")
        found: Columns = {name: [] for name in columns}
        for row in reader:
            for name in columns:
                try:
                    number = float(row[name] or "nan")
                except ValueError:
                    raise UserError(f"{path}, line {reader.line_num}: `{name}` is no number: {row[name]!r}") from None
                found[name].append(number if math.isfinite(number) else None)
    if path.stem == "ppo" and not found["step"]:
        raise UserError(f"{path}: no rows, so PPO made no update; {AGAIN}")
    return found
