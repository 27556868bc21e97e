"""What the controls wrote → one checked `Found`."""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from controls.models import MODELS, SIZES
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import METRICS
from stages.page.inputs import Column
from stages.page.inputs import rows as json_lines
from stages.runtime.errors import UserError

JUDGES = ("reward", "gold")
CURVES = ("ppo_half", "no_critic", "length_only")


class Accuracy(NamedTuple):
    """How well a reward model orders held-out pairs that influenced nothing, 0..1."""

    all: Interval
    """The pairs of a question share answers, so the interval draws questions."""
    not_longer: float
    """Where the chosen answer is not the longer one."""
    trained_on: int


class Found(NamedTuple):
    dialogues: list[int]
    """Of each test question."""
    numbers: dict[str, dict[str, Column]]
    """Model → metric, `reward`, `gold`, `kl` → one number per question. The two rewards are in standard deviations of
    the SFT model's answers, whose mean is 0: the reward models have units of their own."""
    best_of_n: dict[int, dict[str, list[float]]]
    """n → `reward`, `gold` → the expected value of each question, in the same unit."""
    curves: dict[str, dict[str, list[float]]]
    """Policy → column → one number per update, `score` and `gold` in the same unit, from the first update's on."""
    accuracy: dict[str, Accuracy]
    """Of `proxy` and `gold`."""


def read(controls: Path, answers: Path, draws: int, seed: int) -> Found:
    """Read the folder of the controls' reports, and one of the answers' files for the dialogues.

    Args:
        draws: of the bootstrap that gives the reward models' accuracies their intervals.
        seed: of these draws.

    Raises:
        UserError: a file breaks off or has other questions than its neighbour.
        FileNotFoundError: a file is missing.
    """
    questions = _rows(answers)
    numbers = {
        model.name: _numbers(controls / "evaluation" / f"{model.name}.jsonl", len(questions)) for model in MODELS
    }
    units = {judge: _unit(numbers["sft"][judge]) for judge in JUDGES}
    for columns in numbers.values():
        for judge, unit in units.items():
            columns[judge] = [unit.of(value) for value in columns[judge] if value is not None]
    path = controls / "best_of_n.jsonl"
    drawn = _rows(path, len(questions))
    try:
        best_of_n = {
            n: {judge: [units[judge].of(row[str(n)][judge]) for row in drawn] for judge in JUDGES} for n in SIZES
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: key {error} is missing; run `make controls`") from None
    return Found(
        dialogues=[at if row.get("dialogue") is None else row["dialogue"] for at, row in enumerate(questions)],
        numbers=numbers,
        best_of_n=best_of_n,
        curves={policy: _curve(controls / policy / "curve.csv", units) for policy in CURVES},
        accuracy={name: _accuracy(controls / f"reward_{name}", draws, seed) for name in ("proxy", "gold")},
    )


class Unit(NamedTuple):
    mean: float
    deviation: float

    def of(self, value: float) -> float:
        return (value - self.mean) / self.deviation


def _unit(values: Column) -> Unit:
    known = [value for value in values if value is not None]
    return Unit(statistics.fmean(known), statistics.pstdev(known) or 1.0)


def _rows(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    rows = list(json_lines(path.read_text(encoding="utf-8"), str(path)))
    if count is not None and len(rows) != count:
        raise UserError(f"{path}: {len(rows)} lines for {count} test questions; run `make controls`")
    return rows


def _numbers(path: Path, count: int) -> dict[str, Column]:
    rows = _rows(path, count)
    keys = [metric.key for metric in METRICS if not metric.whole_set] + ["gold", "kl"]
    columns: dict[str, Column] = {}
    for key in keys:
        values = [row.get(key) for row in rows]
        if any(value is not None for value in values):
            columns[key] = [None if value is None else float(value) for value in values]
    if missing := [judge for judge in JUDGES if None in columns.get(judge, [None])]:
        raise UserError(f"{path}: key `{missing[0]}` is missing; run `make controls`")
    return columns


def _curve(path: Path, units: dict[str, Unit]) -> dict[str, list[float]]:
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {name: [float(row[name]) for row in rows] for name in ("step", "kl", "score", "gold", "response_length")}
    for name, judge in (("score", "reward"), ("gold", "gold")):
        found[name] = [(value - found[name][0]) / units[judge].deviation for value in found[name]]
    return found


def _accuracy(folder: Path, draws: int, seed: int) -> Accuracy:
    path = folder / "metrics.json"
    document, scores = json.loads(path.read_text(encoding="utf-8")), _rows(folder / "scores.jsonl")
    try:
        right = [float(row["chosen"] > row["rejected"]) for row in scores]
        return Accuracy(
            bootstrap.mean(right, [row["question"] for row in scores], draws, seed, (0, 1)),
            document["eval_accuracy_chosen_not_longer"],
            document["pairs"]["train"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: key {error} is missing; run `make controls`") from None
