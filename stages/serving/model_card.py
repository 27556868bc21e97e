"""What an exported model says about itself: a README.md with the metadata that the Hugging Face hub reads.

It tells what is known and leaves out the rest: scores are those of these very weights or none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stages.models.base_model import TINY, Base
from stages.models.stack import Lineage
from stages.serving.stack_names import Name

CHATGLM = "chatglm"
LABELS = {
    "rouge-1": "ROUGE-1",
    "rouge-2": "ROUGE-2",
    "rouge-l": "ROUGE-L",
    "bleu-4": "BLEU-4",
    "distinct-2": "Distinct-2",
    "response_length": "length, characters",
    "response_tokens": "length, tokens",
    "eos_rate": "ended by itself, share",
    "reward": "reward",
}
HUB_TYPES = {"rouge-1": "rouge", "rouge-2": "rouge", "rouge-l": "rouge", "bleu-4": "bleu"}
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
    free: bool = False
    """Whether a model trained on it can go under Apache-2.0."""


# By the name of its folder or file.
SOURCES = {
    "sample": Source(
        "a synthetic corpus made for this project: a grammar puts symptoms, drugs and dosages together at random",
        "Apache-2.0; nothing is taken from real consultations",
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
UNKNOWN = Source("a data set that this export knows nothing about", "unknown: state it here before you share the model")


@dataclass(frozen=True)
class Scores:
    """The means of `reports/metrics/<name>.json` and the reward, each with its 95 % interval."""

    values: dict[str, float]
    intervals: dict[str, dict[str, float]]
    samples: int


def measured(metrics: Path, name: Name, origin: Base, adapters: Sequence[Lineage]) -> Scores | None:
    """The scores of this stack; None where there are none, or only those of other weights."""
    if not (metrics / "lineage.json").is_file() or not (metrics / f"{name}.json").is_file():
        return None
    scored = _read(metrics / "lineage.json")
    if scored["base"]["identity"] != origin.identity:
        return None
    if any(scored.get(each.adapter, {}).get("sha256") != each.sha256 for each in adapters):
        return None
    own, reward = _read(metrics / f"{name}.json"), _read(metrics / "reward.json")
    return Scores(
        {key: own[key] for key in LABELS if key in own} | {"reward": reward[name]},
        own["ci95"] | {"reward": reward["ci95"][name]},
        own["samples"],
    )


def text(
    name: Name,
    origin: Base,
    adapters: Sequence[Lineage],
    parameters: Mapping[str, Any],
    scores: Scores | None,
    model_type: str,
    to: str,
) -> str:
    """The whole card.

    Args:
        parameters: params.yaml.
        model_type: as config.json says.
        to: what the folder is called.
    """
    native = model_type == CHATGLM
    data = parameters["data"]
    dialogues = _source(data["dialogues"])
    sources = {"dialogues": (data["dialogues"], dialogues)}
    if name is Name.ppo:
        sources["preferences"] = (data["preferences"], _source(data["preferences"]))
    free = origin.model.name == TINY and all(source.free for _, source in sources.values())
    metadata = yaml.safe_dump(_metadata(name, origin, data, scores, free), allow_unicode=True, sort_keys=False)
    parts = [
        f"---\n{metadata}---",
        f"# COVID doctor: {name}",
        f"{STORIES[name]} It answers questions of patients in Chinese, for research on RLHF.",
        NOTICE,
        _made_of(origin, adapters),
        "## Data\n\n" + "\n".join(f"- **{kind}** (`{path}`): {s.about}." for kind, (path, s) in sources.items()),
        _score_part(scores, data["dialogues"]),
        "## Parameters\n\nAs `params.yaml` stood at the export.\n\n```yaml\n"
        + yaml.safe_dump({key: parameters[key] for key in SECTIONS[name] if _counts(key, origin)}, sort_keys=False)
        + "```",
        _licence_part(origin, sources, native),
        INTENDED,
        _limits(origin, native),
        _chatglm_use(to) if native else _use(to),
    ]
    return "\n\n".join(parts) + "\n"


NOTICE = """\
> **It gives no medical advice.** Its answers can be wrong and dangerous, and no doctor has checked them. Do not act on
> them; ask a doctor.
>
> **本模型不提供医疗建议。** 回答可能有误甚至有害，请勿据此行事；身体不适请就医。"""

INTENDED = """\
## Intended use

Studying how SFT and PPO change a model's answers, and comparing training recipes. Not for: diagnosis, triage, advice
on drugs or doses, any service for patients, or anything else where somebody may act on an answer."""


def _limits(origin: Base, native: bool) -> str:
    lines = [
        "ROUGE and BLEU compare words with one doctor's answer. They say nothing about whether an answer is right.",
        "The reward model is a learned proxy; PPO also learns its faults, a liking for long answers among them.",
        "Drugs, doses, hospitals and rules in an answer may be invented, or as old as the data.",
        "It knows Chinese text of the kind it was trained on, and no other language or task.",
    ]
    if origin.model.name == TINY:
        lines.append("The base is a tiny network made to show the pipeline: it has no knowledge of medicine at all.")
    if not native:
        lines.append(
            "Plain `transformers` and most servers read a special token that a user types (`<|im_start|>` …) as one. "
            "`python -m stages.chat` of the project keeps it as text; a service must filter it."
        )
    if origin.model.quantization != "none":
        lines.append(
            f"It was trained and measured on the base quantized to {origin.model.quantization}, and is merged in "
            "full precision here: its answers are not quite those that were measured."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _made_of(origin: Base, adapters: Sequence[Lineage]) -> str:
    rows = [f"| base | `{origin.identity}` |", *(f"| {each.adapter} adapter | `{each.sha256}` |" for each in adapters)]
    return (
        "## What it is made of\n\n| part | identity |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\nWeights in {origin.model.dtype}."
    )


def _score_part(scores: Scores | None, dialogues: str) -> str:
    if scores is None:
        return "## Metrics\n\nNone: these weights were not measured, or the metrics at hand are of other weights."
    rows = [
        f"| {LABELS[key]} | {value:.2f} | {scores.intervals[key]['low']:.2f} … {scores.intervals[key]['high']:.2f} |"
        for key, value in scores.values.items()
    ]
    return (
        f"## Metrics\n\nOn the {scores.samples} questions of the test split of `{dialogues}`, decoded as "
        "`generation_config.json` says; with 95 % intervals (bootstrap, for distinct-2 jackknife). Text scores run "
        "from 0 to 100, the reward has no scale."
        "\n\n| metric | mean | 95 % interval |\n|---|---:|---:|\n" + "\n".join(rows)
    )


def _licence_part(origin: Base, sources: Mapping[str, tuple[str, Source]], native: bool) -> str:
    name = origin.model.name
    if name == TINY:
        base = "trained from scratch by this project on the dialogues"
    elif native:
        base = (
            "ChatGLM-6B's weights have a licence of their own "
            "(https://github.com/THUDM/ChatGLM-6B/blob/main/MODEL_LICENSE); it goes on to hold for this model"
        )
    elif origin.identity.startswith("hub:"):
        base = f"`{name}`: its licence stands at https://huggingface.co/{name} and goes on to hold for this model"
    else:
        base = f"a local folder, `{name}`: its licence goes on to hold for this model"
    lines = [f"- **base**: {base}.", *(f"- **{kind}**: {source.rights}." for kind, (_, source) in sources.items())]
    return "## Licence notes\n\nThe code of the project is under Apache-2.0. For the weights:\n\n" + "\n".join(lines)


def _use(to: str) -> str:
    return f"""\
## Use

```python
from transformers import pipeline

doctor = pipeline("text-generation", model="{to}")
messages = [{{"role": "user", "content": "医生您好，我发烧三天了"}}]
print(doctor(messages)[0]["generated_text"][-1]["content"])
```

`generation_config.json` holds the decoding settings of the evaluation; `do_sample=False` gives the greedy answer.

As a service with the OpenAI API, either of:

    transformers serve ./{to}    # pip install "transformers[serving]"
    vllm serve ./{to}            # pip install vllm

    curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{{"model": "./{to}", "temperature": 0, "messages": [{{"role": "user", "content": "我发烧三天了"}}]}}'

`"temperature": 0` asks for the greedy answer; without it the server samples as `generation_config.json` says. The
project has compared the answers of `transformers serve` with its own on its built-in model; it has not run vLLM.
Whoever serves the model must show the notice above to the users."""


def _chatglm_use(to: str) -> str:
    return f"""\
## Use

The first ChatGLM is not part of transformers, which can't load this folder alone. A checkout of covid-doctor brings
it, without code from the hub; in its folder:

```python
from stages.models import chatglm

chatglm.register()  # lets transformers load `model_type: chatglm`
from transformers import pipeline

doctor = pipeline("text-generation", model="{to}")
messages = [{{"role": "user", "content": "医生您好，我发烧三天了"}}]
print(doctor(messages)[0]["generated_text"][-1]["content"])
```

`generation_config.json` holds the decoding settings of the evaluation; `do_sample=False` gives the greedy answer.

As a service: `vllm serve` and `transformers serve` do not know this architecture (what vLLM calls ChatGLM is the second
generation). A server of your own must call `stages.models.chatglm.register()` and show the notice above."""


def _metadata(name: Name, origin: Base, data: Mapping[str, Any], scores: Scores | None, free: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"language": ["zh"], "library_name": "transformers", "pipeline_tag": "text-generation"}
    if free:
        metadata["license"] = "apache-2.0"
    else:
        metadata |= {"license": "other", "license_name": "see-licence-notes", "license_link": "README.md"}
    metadata["tags"] = ["covid-doctor", "medical", "research", *(["rlhf", "ppo"] if name is Name.ppo else [])]
    if origin.identity.startswith("hub:"):
        metadata |= {"base_model": origin.model.name, "base_model_relation": "finetune"}
    if scores is not None:
        kind = Path(data["dialogues"]).name
        metadata["model-index"] = [
            {
                "name": f"covid-doctor-{name}",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": f"{kind}, test split", "type": kind, "split": "test"},
                        "metrics": [
                            {"type": HUB_TYPES.get(key, key), "name": LABELS[key], "value": value}
                            for key, value in scores.values.items()
                        ],
                    }
                ],
            }
        ]
    return metadata


def _source(path: str) -> Source:
    where = Path(path)
    return SOURCES.get(where.name) or SOURCES.get(where.parent.name) or UNKNOWN


def _counts(section: str, origin: Base) -> bool:
    return section != "base" or origin.model.name == TINY


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
