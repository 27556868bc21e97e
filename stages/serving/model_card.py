"""What an exported model says about itself: a README.md with the metadata that the Hugging Face hub reads.

The text stands in `model_card.md.jinja`. The card tells what is known and leaves out the rest: scores are those of
these very weights or none.
"""

import csv
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stages.models.base_model import TINY, Base
from stages.models.stack import Lineage
from stages.serving.model_names import Name

CHATGLM = "chatglm"
TEMPLATE = "model_card.md.jinja"
SECTIONS = {
    Name.base: ("seed", "model", "data", "base", "predict"),
    Name.sft: ("seed", "model", "data", "base", "sft", "predict"),
    Name.ppo: ("seed", "model", "data", "base", "sft", "rm", "ppo", "predict"),
}
STORIES = {
    Name.base: "The base model, exported as it is: no adapter is merged into it.",
    Name.sft: "The base model, fine-tuned with LoRA on the doctors' answers (SFT).",
    Name.ppo: "The base model, fine-tuned with LoRA on the doctors' answers (SFT) and then with PPO for answers that a "
    "reward model prefers. The reward model saw pairs of a better and a worse answer.",
}


class Source(NamedTuple):
    """What is known of a data set."""

    about: str
    rights: str
    language: str | None = "zh"
    free: bool = False
    """Whether a model trained on it can go under Apache-2.0."""


# By the name of its folder or file.
SOURCES = {
    "sample": Source(
        "a synthetic corpus made for this project: a grammar puts symptoms, drugs and dosages together at random",
        "Apache-2.0; nothing is taken from real consultations",
        free=True,
    ),
    "clinic": Source(
        "a few English dialogues and preference pairs, written by hand for this project; no doctor has checked them",
        "Apache-2.0; nothing is taken from real consultations",
        language="en",
        free=True,
    ),
    "covid-dialogue": Source(
        "COVID-Dialogue-Dataset-Chinese: consultations of doctors on Haodf.com "
        "(https://github.com/UCSD-AI4H/COVID-Dialogue, arXiv:2005.05442)",
        "all copyrights belong to Haodf.com; published for research, and the repository names no licence. Do not "
        "publish a model that repeats the texts without asking",
    ),
    "comparison_gpt4_zh.json": Source(
        "pairs of GPT-4's and another model's answers in Chinese (GPT-4-LLM, arXiv:2304.03277)",
        "CC BY-NC 4.0, research only",
    ),
    "oaast_rm_zh.json": Source("OpenAssistant's ranked answers in Chinese", "Apache-2.0", free=True),
}
UNKNOWN = Source(
    "a data set that this export knows nothing about",
    "unknown: state it here before you share the model",
    language=None,
)


class Score(NamedTuple):
    """One metric's mean over the test questions, with its 95 % interval if there is one."""

    metric: str
    label: str
    value: float
    low: float | None
    high: float | None


class Scores(NamedTuple):
    rows: list[Score]
    questions: int


def measured(table: Path, evaluation: Path, name: Name, base: Base, adapters: Sequence[Lineage]) -> Scores | None:
    """The scores of this model; None where there are none, or only those of other weights.

    Args:
        table: the report's CSV file `model,metric,value,low,high`.
        evaluation: the folder of what `evaluate` measured, whose lineage says which weights these were.
    """
    lineage, numbers = evaluation / "lineage.json", evaluation / f"{name}.jsonl"
    if not (table.is_file() and lineage.is_file() and numbers.is_file()):
        return None
    weights = json.loads(lineage.read_text(encoding="utf-8"))
    if weights["base"]["identity"] != base.identity:
        return None
    if any(weights.get(adapter.adapter, {}).get("sha256") != adapter.sha256 for adapter in adapters):
        return None
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == name]
    answers = [json.loads(line) for line in numbers.read_text(encoding="utf-8").split("\n") if line]
    if not all(_is_mean(row, answers) for row in rows):
        return None  # the table is of another run than the evaluation: one was made anew, or checked out, alone
    return Scores([_score(row) for row in rows], len(answers))


def text(
    name: Name,
    base: Base,
    adapters: Sequence[Lineage],
    parameters: Mapping[str, Any],
    scores: Scores | None,
    model_type: str,
    folder: str,
) -> str:
    """The whole card.

    Args:
        parameters: params.yaml.
        model_type: as config.json names it.
        folder: what the folder is called.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    data = parameters["data"]
    sources = {"dialogues": (data["dialogues"], _source(data["dialogues"]))}
    if name is Name.ppo:
        sources["preferences"] = (data["preferences"], _source(data["preferences"]))
    shown = [section for section in SECTIONS[name] if section != "base" or base.model.name == TINY]

    # The card is Markdown, where HTML escapes would show as such; so what comes from outside stands in code spans or
    # is quoted for the language around it, and can't open a span, a line or an HTML tag of its own.
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters |= {"code": _code, "shell": shlex.quote, "python": json.dumps}
    body = jinja.get_template(TEMPLATE).render(
        name=name,
        story=STORIES[name],
        base=base,
        adapters=adapters,
        sources=sources,
        scores=scores,
        parameters=yaml.safe_dump(
            {section: parameters[section] for section in shown}, sort_keys=False, width=10**6, allow_unicode=True
        ),
        chatglm=model_type == CHATGLM,
        folder=folder,
        request=json.dumps(
            {"model": f"./{folder}", "temperature": 0, "messages": [{"role": "user", "content": "我发烧三天了"}]},
            ensure_ascii=False,
        ),
    )
    metadata = _metadata(name, base, [source for _, source in sources.values()], data["dialogues"], scores)
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}"))


def _metadata(name: Name, base: Base, sources: Sequence[Source], dialogues: str, scores: Scores | None) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    more: dict[str, Any] = {}
    if base.model.name == TINY and all(source.free for source in sources):
        more["license"] = "apache-2.0"
    else:
        more |= {"license": "other", "license_name": "see-licence-notes", "license_link": "README.md"}
    if sources[0].language:
        more["language"] = [sources[0].language]
    if base.identity.startswith("hub:"):
        more |= {"base_model": base.model.name, "base_model_relation": "finetune"}
    if scores is not None:
        kind = Path(dialogues).name
        more["model_name"] = f"covid-doctor-{name}"
        more["eval_results"] = [
            EvalResult(
                task_type="text-generation",
                dataset_type=kind,
                dataset_name=f"{kind}, test split",
                dataset_split="test",
                metric_type=row.metric.split("-")[0] if row.metric.startswith(("rouge-", "bleu-")) else row.metric,
                metric_name=row.label,
                metric_value=row.value,
            )
            for row in scores.rows
        ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["covid-doctor", "medical", "research", *(["rlhf", "ppo"] if name is Name.ppo else [])],
        **more,
    )


def _is_mean(row: Mapping[str, str], answers: Sequence[Mapping[str, float]]) -> bool:
    """Whether a value of the table is the mean over these answers, as far as the table's six digits tell."""
    from stages.metrics import definitions

    metric = definitions.BY_NAME.get(row["metric"])
    if metric is None or metric.whole_set:
        return True
    values = [answer[metric.key] for answer in answers if metric.key in answer]
    mean = sum(values) / len(values) * metric.scale if values else math.nan
    return math.isclose(mean, float(row["value"]), rel_tol=1e-4, abs_tol=1e-3)


def _score(row: Mapping[str, str]) -> Score:
    from stages.metrics import definitions

    metric = definitions.BY_NAME.get(row["metric"])
    low, high = (float(row[key]) if row[key] else None for key in ("low", "high"))
    return Score(row["metric"], metric.en if metric else row["metric"], float(row["value"]), low, high)


def _source(path: str) -> Source:
    where = Path(path)
    return SOURCES.get(where.name) or SOURCES.get(where.parent.name) or UNKNOWN


def _code(value: str) -> str:
    """A Markdown code span of one line."""
    return "`" + " ".join(str(value).split()).replace("`", "'") + "`"
