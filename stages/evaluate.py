"""Measure the answers: how close each is to the doctor's, what the reward model thinks of it, and what it rewards.

    python -m stages.evaluate --help

It writes numbers per sample; means, intervals and differences are the report's. Without preferences there is neither
a reward model nor PPO: then it measures the texts of base and SFT alone.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.metrics import definitions, phrases, probes, retrieval
from stages.metrics.probes import Text
from stages.models import base_model, reward, stack
from stages.runtime import atomic, environment, params, processes
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.scoring import rows
from stages.scoring.scorer import EvaluateConfig, Scorer
from stages.text import encoding, held_out, records


@command
def main(
    data: Annotated[Path, typer.Option(help="folder of the samples, the preference pairs and, if any, facts.jsonl")],
    answers: Annotated[Path, typer.Option(help="folder of the answers, base.jsonl, sft.jsonl and ppo.jsonl")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    sft: Annotated[Path, typer.Option(help="folder of the SFT adapter")],
    to: Annotated[Path, typer.Option(help="folder of the numbers")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
    rm: Annotated[Path | None, typer.Option(help="folder of the reward adapter and its head")] = None,
    ppo: Annotated[Path | None, typer.Option(help="folder of the PPO adapter; not without --rm")] = None,
) -> None:
    """Measure every answer, ask the reward model about changed ones, and collect which model is made of what."""
    if (rm is None) != (ppo is None):
        raise UserError("--rm and --ppo belong together: PPO's policy was trained with that reward model")
    config = params.load(params_file, "evaluate", EvaluateConfig)
    samples, training = records.read_samples(data / "test.jsonl"), records.read_samples(data / "train.jsonl")
    models, count = definitions.MODELS if ppo else ("base", "sft"), len(samples)
    generated = {name: rows.read(answers / f"{name}.jsonl", count, "predict") for name in models}
    facts = rows.read_facts(data, count)
    frozen_base = base_model.read(base)
    processes.announce("evaluate")
    stack.resolve(frozen_base, [sft], "sft")
    if rm and ppo:
        policy_stack = stack.resolve(frozen_base, [sft, ppo], "ppo")
        stack.resolve(frozen_base, [rm], "reward")

    # every process measures everything: it is quick, and a base that is sharded needs all of them
    accelerator = processes.join()
    tokenizer = frozen_base.tokenizer()

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
    tokens[definitions.BASELINE] = [
        len(encoding.encode_answer(tokenizer, text.text, config.max_target_length).ids)
        for text in texts[definitions.BASELINE]
    ]

    rewards: dict[str, list[float]] = {}
    if rm and ppo:
        # The probes: answers changed on purpose, and pairs under another question.
        closing = next(iter(phrases.endings([s.output for s in training], 1)), "")
        changed = probes.texts(doctor, texts["sft"], texts["ppo"], records.dialogues(samples), closing)
        _, pairs = held_out.parts(records.read_pairs(data / "preferences_validate.jsonl"))
        model = stack.load(frozen_base.causal_lm(accelerator.device), [sft, ppo, rm])
        scorer = Scorer(model, reward.load_head(rm, accelerator.device), tokenizer, config)
        with stack.active(model, ["reward"]), stack.merged(model, only_if=stack.merges_exactly(model)):
            rewards = scorer.of_answers(samples, texts | changed)
            judged = scorer.of_pairs(pairs)
        policy, reference = ([stack.lineage(f).adapter for f in folders] for folders in (policy_stack, [sft]))
        drift = scorer.kl(samples, texts["ppo"], policy, reference)
    if not accelerator.is_main_process:
        return

    for name, each in texts.items():
        columns = {"reward": rewards[name]} if rewards else {}
        measured = rows.measured(each, doctor, tokens[name], facts, **columns)
        # the answers themselves are predict's, all but the baseline's
        shown = rows.shown(tokenizer, each, with_text=name == definitions.BASELINE)
        atomic.write_jsonl(to / f"{name}.jsonl", (a | b for a, b in zip(measured, shown, strict=True)))
    if rewards:
        numbers = {name: rewards[name] for name in changed} | {"kl": drift}
        atomic.write_jsonl(to / "probes.jsonl", rows.of_columns(numbers))
        atomic.write_jsonl(to / "pairs.jsonl", judged)
        atomic.write_json(to / "probes.json", {"closing": closing})
    adapters = {record.adapter: record.__dict__ for record in map(stack.lineage, filter(None, (sft, ppo, rm)))}
    identity = {"name": frozen_base.model.name, "identity": frozen_base.identity}
    atomic.write_json(to / "lineage.json", {"base": identity} | adapters)
    environment.write(to)


if __name__ == "__main__":
    typer.run(main)
