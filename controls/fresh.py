"""What runs gained on questions that no setting was chosen by, and that are as many as the answer needs.

    python data/sample/generate.py --fresh 300 --to data/fresh
    python -m controls.fresh data/fresh seed-1 seed-2 seed-3 seed-4 seed-5 --to reports/fresh.md

A run is a commit, branch, tag or experiment, or `workspace`. The folder has test_data.json and, if anything is known of
the answers, facts.json, in the formats of the pipeline's data: questions of your own will do.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from stages import compare, predict, preprocess
from stages.importing import dialogues
from stages.metrics import bootstrap, definitions, seeds
from stages.metrics.probes import Text
from stages.models import base_model, reward, stack
from stages.page.compare_inputs import Unfinished
from stages.page.formats import MISSING, fixed, span
from stages.page.probes import EQUAL_LENGTH
from stages.runtime import atomic, params, processes
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.scoring import rows
from stages.scoring.scorer import EvaluateConfig, Scorer
from stages.text import encoding
from stages.text.records import Sample

N = 4
"""Of best-of-n."""
DRAWS = 2000
RUN = {"base": "models/base", "sft": "models/sft", "rm": "models/rm", "ppo": "models/ppo"}
"""The parts of a run, and where each lies in it."""
Values = Sequence[float | None]
"""A number of each question; None where it is not known."""


class Column(NamedTuple):
    """What PPO's answers have more of than the other's."""

    title: str
    other: str
    metric: str
    digits: int = 2
    only_equal: bool = False
    """Where both answers are about equally long."""


COLUMNS = (
    Column("Reward, sd", "sft", "reward"),
    Column(f"… within {EQUAL_LENGTH} characters", "sft", "reward", only_equal=True),
    Column(f"… against best of {N}", "best", "reward"),
    Column("Facts named, %", "sft", "facts_named", 1),
    Column("Facts contradicted, %", "sft", "facts_contradicted", 1),
    Column("ROUGE-L", "sft", "rouge-l", 1),
    Column("Length, characters", "sft", "response_length", 1),
)


class Questions(NamedTuple):
    samples: list[Sample]
    facts: Sequence[dict[str, Any] | None]

    @property
    def dialogues(self) -> list[int]:
        return [int(sample.dialogue or 0) for sample in self.samples]


@command
def main(
    data: Annotated[Path, typer.Argument(help="folder of test_data.json and, if any, facts.json")],
    revs: Annotated[list[str] | None, typer.Argument(help="runs; the workspace by default")] = None,
    to: Annotated[Path | None, typer.Option(help="also write the table there (Markdown)")] = None,
) -> None:
    """Answer the questions with SFT and PPO of each run, and hold them against each other and against best of 4."""
    found = {}
    questions = None
    for rev in revs or [compare.WORKSPACE]:
        with tempfile.TemporaryDirectory() as folder:
            run = fetch(rev, Path(folder))
            own = read(data, run / "params.yaml")
            questions = questions or own
            if own != questions:
                raise UserError(f"{rev}: its section `data` makes other samples of {data} than that of the first run")
            found[rev] = measure(questions, run)
    assert questions is not None
    text = markdown(found, questions.dialogues)
    print(text, end="")
    if to:
        atomic.write_text(to, text)


def fetch(rev: str, folder: Path) -> Path:
    """The folder with the parameters and the models of a run; those of a revision are copied into `folder`."""
    if rev == compare.WORKSPACE:
        return Path()
    try:
        files = compare.Revision(rev)
    except Unfinished as reason:
        raise UserError(f"{rev}: {reason}") from None
    for path in ("params.yaml", *RUN.values()):
        files.copy(path, folder / path)
    return folder


def read(data: Path, params_file: Path) -> Questions:
    rules = params.load(params_file, "data", preprocess.DataConfig)
    source = data / "test_data.json"
    samples = [
        sample._replace(dialogue=index)
        for index, dialogue in enumerate(preprocess.read(source, own="covid"))
        for sample in dialogues.to_samples(dialogue, rules, f"{source}, dialogue {index}")[0]
    ]
    if not samples:
        raise UserError(f"{source}: no dialogue of it gives a sample")
    return Questions(samples, preprocess.read_facts(data / "facts.json", samples) or [None] * len(samples))


def measure(questions: Questions, run: Path) -> dict[str, Values]:
    """For each column what PPO has more, by question."""
    params_file = run / "params.yaml"
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "predict", predict.PredictConfig)
    base, sft, rm, ppo = (run / path for path in RUN.values())
    frozen_base = base_model.read(base)
    policy = stack.resolve(frozen_base, [sft, ppo], "ppo")
    processes.announce("fresh")
    device = processes.device()
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(device), [sft, ppo, *stack.resolve(frozen_base, [rm], "reward")])
    samples = questions.samples
    prompts = [predict.encode(tokenizer, sample, config) for sample in samples]

    def answers(folders: Sequence[Path], key: str) -> list[Text]:
        """As the stage predict would, if `key` were the seed."""
        found = [Text("", False)] * len(prompts)
        keys = [f"{key}/{i}" for i in range(len(prompts))]
        with stack.active(model, [stack.lineage(folder).adapter for folder in folders]):
            for i, answer in predict.answers_of(model, tokenizer, prompts, keys, config):
                text = tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
                found[i] = Text(encoding.normalize(tokenizer, text), answer.ended)
        return found

    texts = {"sft": answers([sft], f"{seed}"), "ppo": answers(policy, f"{seed}")}
    texts |= {f"draw-{n}": answers([sft], f"{seed}/draw-{n}") for n in range(1, N)}
    evaluated = params.load(params_file, "evaluate", EvaluateConfig)
    scorer = Scorer(model, reward.load_head(rm, device), tokenizer, evaluated)
    with stack.active(model, ["reward"]):
        rewards = scorer.of_answers(samples, texts)
    rewards["best"] = [max(draws) for draws in zip(*(rewards[name] for name in texts if name != "ppo"), strict=True)]

    unit = statistics.pstdev(rewards["sft"]) or 1.0  # of a single question
    doctor = [encoding.normalize(tokenizer, sample.output) for sample in samples]
    numbers = {"best": [{"reward": value / unit} for value in rewards["best"]]}
    for name in ("sft", "ppo"):
        in_units = [value / unit for value in rewards[name]]
        tokens = [len(scorer.answer(text)) for text in texts[name]]
        numbers[name] = list(rows.measured(texts[name], doctor, tokens, questions.facts, reward=in_units))
    return {column.title: more(column, numbers[column.other], numbers["ppo"]) for column in COLUMNS}


def more(column: Column, other: Sequence[dict[str, float]], ppo: Sequence[dict[str, float]]) -> list[float | None]:
    """What PPO's answers have more, None where a number is not known or the answers are not comparable."""
    scale = definitions.BY_NAME[column.metric].scale
    found: list[float | None] = []
    for before, after in zip(other, ppo, strict=True):
        known = column.metric in before and column.metric in after
        if column.only_equal:
            known = known and abs(after["response_length"] - before["response_length"]) <= EQUAL_LENGTH
        found.append(scale * (after[column.metric] - before[column.metric]) if known else None)
    return found


def markdown(found: Mapping[str, Mapping[str, Values]], dialogues: Sequence[int]) -> str:
    """A line for each run and, of several, one for their mean."""
    shown = [column for column in COLUMNS if any(v is not None for run in found.values() for v in run[column.title])]
    lines = [
        ["Run", *(column.title for column in shown)],
        ["---", *("---:" for _ in shown)],
        *([f"`{rev}`", *(cell(column, [run[column.title]], dialogues) for column in shown)]
          for rev, run in found.items()),
    ]  # fmt: skip
    if len(found) > 1:
        cells = (cell(column, [run[column.title] for run in found.values()], dialogues) for column in shown)
        lines.append([f"mean of {len(found)}", *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""# Fresh questions: what PPO gained over SFT

{table}

{len(dialogues)} questions of {len(set(dialogues))} dialogues. PPO's answers less SFT's, with 95 % intervals: of a run
by dialogue, of a mean by dialogue and run (bold: zero lies outside). Rewards are those of each run's own reward model,
in standard deviations of its SFT answers. The second column has only the questions that both answer at about the same
length, in brackets how many (of a mean, those of any run). Best of {N} takes, of {N} answers of SFT, the one with the
highest reward.
"""


def cell(column: Column, runs: Sequence[Values], dialogues: Sequence[int]) -> str:
    """The mean over the runs with its interval; a dash where no question has a value."""
    runs = [run for run in runs if any(value is not None for value in run)]
    if not runs:
        return MISSING
    means = [[v for v in values if v is not None] for values in zip(*runs, strict=True)]
    by_question = [statistics.fmean(known) if known else None for known in means]
    found = bootstrap.mean(by_question, dialogues, DRAWS, 0)
    found = seeds.widened_mean(found, [statistics.fmean(v for v in run if v is not None) for run in runs])
    text = f"{fixed(found.value, column.digits, sign=True)} ({span(found, column.digits, sign=True)})"
    if found.beyond_chance:
        text = f"**{text}**"
    return text + (f" [{sum(v is not None for v in by_question)}]" if column.only_equal else "")


if __name__ == "__main__":
    typer.run(main)
