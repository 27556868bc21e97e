"""Files of a revision → what the comparison of runs tells about it."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.metrics.definitions import METRICS, MODELS
from stages.page import inputs
from stages.page.inputs import CURVES, Column, Columns
from stages.page.lock import Lock
from stages.page.tables import flat
from stages.runtime.errors import UserError

ReadText = Callable[[str], str]
"""A path of the revision → its text; raises FileNotFoundError."""
LOCK, PARAMS = "dvc.lock", "params.yaml"
TRAINED = {"base": ("base",), "sft": ("base", "sft"), "ppo": ("base", "sft", "rm", "ppo")}
"""A stack of adapters → the stages that trained something which its answers depend on."""


class Question(NamedTuple):
    history: list[list[str]]
    instruction: str
    label: str
    """The doctor's answer."""
    dialogue: int


class Run(NamedTuple):
    """One stack of one revision."""

    name: str
    """As it was asked for: `main`, or `main:sft`."""
    model: str
    """The stack: base, sft or ppo."""
    params: dict[str, str]
    """The parameters that decide about these answers and their scores, by dotted key."""
    sources: dict[str, str]
    """The code and data behind the answers: path → MD5."""
    judge: str
    """The reward model, by hash: rewards of two of them are in different units."""
    environment: dict[str, str]
    """What the last of its stages that trains ran on, by dotted key."""
    questions: list[Question]
    answers: list[str]
    scores: dict[str, Column]
    """A metric's key → one number per question, None where it is not known."""
    curves: dict[str, Columns]

    @property
    def seed(self) -> str:
        return self.params["seed"]


class Unfinished(Exception):
    """A revision whose files are not those of one finished run; the message says why."""


def read(name: str, model: str, read_text: ReadText, reports: str) -> Run:
    """Read the stack `model` of a revision.

    Raises:
        Unfinished: a stage has not run, or not since a parameter or an input changed.
        UserError: there is no such stack, or a file is not what the stages write.
        FileNotFoundError: a file is in no cache and no remote.
    """
    if model not in MODELS:
        raise UserError(f"{name}: there is no stack `{model}`, only {', '.join(MODELS)}")
    lock, params = Lock(_yaml(read_text(LOCK), f"{name}: {LOCK}")), _yaml(read_text(PARAMS), f"{name}: {PARAMS}")
    answers, scores = f"{reports}/answers/{model}.jsonl", f"{reports}/evaluation/{model}.jsonl"
    makers = [lock.maker(answers), lock.maker(f"{reports}/rm"), lock.maker(scores)]
    if None in makers:
        raise Unfinished(f"{LOCK} has no stage that made {(answers, f'{reports}/rm', scores)[makers.index(None)]}")
    *behind, last = (str(maker) for maker in makers)
    stages = [*lock.upstream(*behind), last]
    late = lock.unfinished(lock.upstream(last), params)
    if late:
        raise Unfinished(f"stage `{late}` has not run since its parameters or inputs changed")
    rows = list(inputs.rows(read_text(answers), f"{name}: {answers}"))
    return Run(
        name=name,
        model=model,
        params=dict(flat(lock.sections(stages))),
        sources=lock.sources(stages),
        judge=_judge(read_text(f"{reports}/evaluation/lineage.json")),
        environment=_environment(read_text, f"{reports}/{model}/environment.json"),
        questions=[_question(row, at) for at, row in enumerate(rows)],
        answers=[row["predict"] for row in rows],
        scores=_scores(list(inputs.rows(read_text(scores), f"{name}: {scores}")), len(rows), f"{name}: {scores}"),
        curves={
            curve: inputs.curve(read_text(f"{reports}/{path}"), f"{name}: {path}")
            for curve, (path, _) in CURVES.items()
            if curve.partition("_")[0] in TRAINED[model]
        },
    )


def _yaml(text: str, where: str) -> dict[str, Any]:
    """By the rules of YAML 1.2, as DVC reads it."""
    try:
        document = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    return document if isinstance(document, dict) else {}


def _question(row: Mapping[str, Any], at: int) -> Question:
    dialogue = row.get("dialogue")
    return Question(row["history"], row["instruction"], row["label"], at if dialogue is None else dialogue)


def _scores(rows: list[dict[str, Any]], count: int, where: str) -> dict[str, Column]:
    if len(rows) != count:
        raise UserError(f"{where}: {len(rows)} rows for {count} answers")
    keys = [metric.key for metric in METRICS if any(metric.key in row for row in rows)]
    return {key: [None if row.get(key) is None else float(row[key]) for row in rows] for key in keys}


def _judge(text: str) -> str:
    """The hashes of base and reward adapter, from evaluate's lineage.json."""
    lineage = json.loads(text)
    return f"{lineage['base']['identity']} {lineage['reward']['sha256']}"


def _environment(read_text: ReadText, path: str) -> dict[str, str]:
    """Empty for a run from before it was recorded."""
    try:
        return dict(flat(json.loads(read_text(path))))
    except FileNotFoundError:
        return {}
