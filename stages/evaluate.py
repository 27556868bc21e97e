"""Measure the answers: how close each is to the doctor's, what the reward model thinks of it, and what it rewards.

    python -m stages.evaluate --help

It writes numbers per sample; means, intervals and differences are the report's.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.metrics import definitions, phrases, probes, retrieval
from stages.metrics.probes import Text
from stages.models import base_model, reward, stack
from stages.runtime import atomic, environment, params, processes
from stages.runtime.command import command
from stages.scoring import rows
from stages.scoring.scorer import EvaluateConfig, Scorer
from stages.text import encoding, held_out, records


@command
def main(
    data: Annotated[Path, typer.Option(help="folder of the samples, the preference pairs and, if any, facts.jsonl")],
    answers: Annotated[Path, typer.Option(help="folder of the answers, base.jsonl, sft.jsonl and ppo.jsonl")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    sft: Annotated[Path, typer.Option(help="folder of the SFT adapter")],
    rm: Annotated[Path, typer.Option(help="folder of the reward adapter and its head")],
    ppo: Annotated[Path, typer.Option(help="folder of the PPO adapter")],
    to: Annotated[Path, typer.Option(help="folder of the numbers")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Measure every answer, ask the reward model about changed ones, and collect which model is made of what."""
    config = params.load(params_file, "evaluate", EvaluateConfig)
    samples, training = records.read_samples(data / "test.jsonl"), records.read_samples(data / "train.jsonl")
    _, pairs = held_out.parts(records.read_pairs(data / "preferences_validate.jsonl"))
    count = len(samples)
    generated = {name: rows.read(answers / f"{name}.jsonl", count, "predict") for name in definitions.MODELS}
    facts = rows.read_facts(data, count)
    frozen_base = base_model.read(base)
    processes.announce("evaluate")
    stacks = {name: stack.resolve(frozen_base, folders, name) for name, folders in
              (("sft", [sft]), ("ppo", [sft, ppo]), ("reward", [rm]))}  # fmt: skip

    # every process measures everything: it is quick, and a base that is sharded needs all of them
    accelerator = processes.join()
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(accelerator.device), [sft, ppo, rm])
    scorer = Scorer(model, reward.load_head(rm, accelerator.device), tokenizer, config)

    # A text as the tokenizer writes it: one that normalises must not make a perfect answer differ from its reference.
    texts = {
        name: [Text(encoding.normalize(tokenizer, row["predict"]), row["eos"]) for row in each]
        for name, each in generated.items()
    }
    doctor = [encoding.normalize(tokenizer, sample.output) for sample in samples]
    tokens = {name: [row["tokens"] for row in each] for name, each in generated.items()}

    # The baseline: what the doctor answered to the nearest training question.
    nearest = retrieval.nearest([s.instruction for s in samples], [s.instruction for s in training])
    texts[definitions.BASELINE] = [Text(encoding.normalize(tokenizer, training[at].output), True) for at in nearest]
    tokens[definitions.BASELINE] = [len(scorer.answer(text)) for text in texts[definitions.BASELINE]]

    # The probes: answers changed on purpose, and pairs under another question.
    closing = next(iter(phrases.endings([s.output for s in training], 1)), "")
    changed = probes.texts(doctor, texts["sft"], texts["ppo"], records.dialogues(samples), closing)

    with stack.active(model, ["reward"]):
        rewards = {name: scorer.of_answers(samples, each) for name, each in (texts | changed).items()}
        judged = scorer.of_pairs(pairs)
    drift = scorer.kl(samples, texts["ppo"], *([stack.lineage(f).adapter for f in stacks[n]] for n in ("ppo", "sft")))
    if not accelerator.is_main_process:
        return

    for name, each in texts.items():
        measured = rows.measured(each, doctor, tokens[name], facts, reward=rewards[name])
        # the answers themselves are predict's, all but the baseline's
        shown = rows.shown(tokenizer, each, with_text=name == definitions.BASELINE)
        atomic.write_jsonl(to / f"{name}.jsonl", (a | b for a, b in zip(measured, shown, strict=True)))
    numbers = {name: rewards[name] for name in changed} | {"kl": drift}
    atomic.write_jsonl(to / "probes.jsonl", rows.of_columns(numbers))
    atomic.write_jsonl(to / "pairs.jsonl", judged)
    atomic.write_json(to / "probes.json", {"closing": closing})
    adapters = {record.adapter: record.__dict__ for record in map(stack.lineage, [sft, ppo, rm])}
    identity = {"name": frozen_base.model.name, "identity": frozen_base.identity}
    atomic.write_json(to / "lineage.json", {"base": identity} | adapters)
    environment.write(to)


if __name__ == "__main__":
    typer.run(main)
