"""Measure the answers: how close each is to the doctor's, what the reward model thinks of it, and what it rewards.

    python -m stages.evaluate --help

It writes numbers per sample; means, intervals and differences are the report's. Without preferences there is neither
a reward model nor PPO: then it measures the texts of base and SFT alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.metrics import definitions, phrases, probes, retrieval
from stages.metrics.answer import Answer
from stages.metrics.probes import Text
from stages.models import base_model, reward, stack
from stages.runtime import atomic, environment, params, processes
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import encoding, held_out, json_files, records


class EvaluateConfig(params.Section):
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    max_target_length: params.Tokens = 256
    """Tokens of the answer, its EOS included."""
    tokens_per_batch: params.Tokens = 2048
    """Tokens of one pass through the reward model, padding included; answers of like length go together."""


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
    models = definitions.MODELS if ppo else ("base", "sft")
    rows = {name: read_rows(answers / f"{name}.jsonl", len(samples), "predict") for name in models}
    facts = read_facts(data / "facts.jsonl", len(samples))
    frozen_base = base_model.read(base)
    processes.announce("evaluate")
    stack.resolve(frozen_base, [sft], "sft")
    if rm and ppo:
        stack.resolve(frozen_base, [sft, ppo], "ppo")
        stack.resolve(frozen_base, [rm], "reward")

    # every process measures everything: it is quick, and a base that is sharded needs all of them
    accelerator = processes.join()
    tokenizer = frozen_base.tokenizer()

    # A text as the tokenizer writes it: one that normalises must not make a perfect answer differ from its reference.
    given = {
        name: [Text(encoding.normalize(tokenizer, row["predict"]), row["eos"]) for row in each]
        for name, each in rows.items()
    }
    doctor = [encoding.normalize(tokenizer, sample.output) for sample in samples]
    tokens = {name: [row["tokens"] for row in each] for name, each in rows.items()}

    # The baseline: what the doctor answered to the nearest training question.
    nearest = retrieval.nearest([s.instruction for s in samples], [s.instruction for s in training])
    given[definitions.BASELINE] = [Text(encoding.normalize(tokenizer, training[at].output), True) for at in nearest]
    tokens[definitions.BASELINE] = [
        len(encoding.encode_answer(tokenizer, text.text, config.max_target_length).ids)
        for text in given[definitions.BASELINE]
    ]

    rewards: dict[str, list[float]] = {}
    if rm and ppo:
        # The probes: answers changed on purpose, and pairs under another question.
        closing = next(iter(phrases.endings([s.output for s in training], 1)), "")
        changed = probes.texts(doctor, given["sft"], given["ppo"], records.dialogues(samples), closing)
        _, pairs = held_out.parts(records.read_pairs(data / "preferences_validate.jsonl"))
        model = stack.load(frozen_base.causal_lm(accelerator.device), [sft, ppo, rm])
        scorer = Scorer(model, reward.load_head(rm, accelerator.device), tokenizer, config)
        with stack.active(model, ["reward"]):
            rewards = {name: scorer.of_answers(samples, texts) for name, texts in (given | changed).items()}
            judged = scorer.of_pairs(pairs)
        policy, reference = ([stack.lineage(f).adapter for f in folders] for folders in ([sft, ppo], [sft]))
        drift = scorer.kl(samples, given["ppo"], policy, reference)
    if not accelerator.is_main_process:
        return

    for name, texts in given.items():
        measured = [
            definitions.measure(Answer(text.text, reference, count, text.ended, known))
            for text, reference, count, known in zip(texts, doctor, tokens[name], facts, strict=True)
        ]
        valued = [{"reward": round(value, 4)} for value in rewards[name]] if rewards else [{}] * len(texts)
        texts_too = [written(tokenizer, text.text, name == definitions.BASELINE) for text in texts]
        atomic.write_jsonl(
            to / f"{name}.jsonl",
            (
                rounded(numbers) | value | extra
                for numbers, value, extra in zip(measured, valued, texts_too, strict=True)
            ),
        )
    if rewards:
        atomic.write_jsonl(
            to / "probes.jsonl",
            (
                {name: round(rewards[name][at], 4) for name in changed} | {"kl": round(drift[at], 4)}
                for at in range(len(samples))
            ),
        )
        atomic.write_jsonl(to / "pairs.jsonl", judged)
        atomic.write_json(to / "probes.json", {"closing": closing})
    adapters = [folder for folder in (sft, ppo, rm) if folder]
    parts = {record.adapter: record.__dict__ for record in map(stack.lineage, adapters)}
    identity = {"name": frozen_base.model.name, "identity": frozen_base.identity}
    atomic.write_json(to / "lineage.json", {"base": identity} | parts)
    environment.write(to)


class Scorer:
    """Texts → rewards, and how far the policy is from the SFT model on them."""

    def __init__(self, model: Any, head: Any, tokenizer: Any, config: EvaluateConfig) -> None:
        self.model, self.head, self.tokenizer, self.config = model, head, tokenizer, config

    def prompt(self, question: records.Sample | records.Pair) -> list[int]:
        limit = self.config.max_source_length
        return encoding.encode_prompt(self.tokenizer, question.history, question.instruction, limit, "evaluate").ids

    def answer(self, text: Text) -> list[int]:
        """Closed by EOS only where the model itself closed it, as PPO saw it."""
        ids = encoding.encode_answer(self.tokenizer, text.text, self.config.max_target_length).ids
        return ids if text.ended or len(ids) == 1 else ids[:-1]

    def rewards(self, prompts: Sequence[list[int]], texts: Sequence[Text]) -> list[float]:
        pad, size = self.tokenizer.pad_token_id, self.config.tokens_per_batch
        return reward.score(self.model, self.head, prompts, [self.answer(text) for text in texts], pad, size)

    def of_answers(self, samples: Sequence[records.Sample], texts: Sequence[Text]) -> list[float]:
        return self.rewards([self.prompt(sample) for sample in samples], texts)

    def of_pairs(self, pairs: Sequence[records.Pair]) -> list[dict[str, Any]]:
        """Each pair's scores under its own question and under another pair's, and its chosen answer's rival from there.

        A row's `question` numbers the questions: pairs of one question are not independent.
        """
        names: dict[str, int] = {}
        questions = [names.setdefault(pair.instruction, len(names)) for pair in pairs]
        other = probes.others(questions)
        own_prompts = [self.prompt(pair) for pair in pairs]
        other_prompts = [own_prompts[at] for at in other]
        chosen, rejected = [Text(p.chosen, True) for p in pairs], [Text(p.rejected, True) for p in pairs]
        columns = {
            "chosen": self.rewards(own_prompts, chosen),
            "rejected": self.rewards(own_prompts, rejected),
            "chosen_other_question": self.rewards(other_prompts, chosen),
            "rejected_other_question": self.rewards(other_prompts, rejected),
            "chosen_of_other": self.rewards(own_prompts, [chosen[at] for at in other]),
        }
        return [
            {"question": question, "chosen_length": len(pair.chosen), "rejected_length": len(pair.rejected)}
            | {name: round(values[at], 4) for name, values in columns.items()}
            for at, (question, pair) in enumerate(zip(questions, pairs, strict=True))
        ]

    def kl(
        self, samples: Sequence[records.Sample], texts: Sequence[Text], policy: list[str], reference: list[str]
    ) -> list[float]:
        """KL divergence of each answer, in nats: Σ over its tokens of KL(policy ‖ reference) over the vocabulary.

        Exact at each position; the positions are those of the given answers.

        Args:
            policy, reference: the adapters that make up each.
        """
        import torch

        from stages.models import forward

        prompts, ids = [self.prompt(sample) for sample in samples], [self.answer(text) for text in texts]
        pad, device = self.tokenizer.pad_token_id, self.head.weight.device
        plan = forward.plan(forward.lengths(prompts, ids), self.config.tokens_per_batch)
        head = forward.causal_lm(self.model).get_output_embeddings()
        found = [0.0] * len(ids)
        with torch.no_grad():
            for rows, batch in forward.batches(prompts, ids, plan, pad, device):
                states = []
                for adapters in (policy, reference):
                    with stack.active(self.model, adapters):
                        states.append(forward.hidden_states(self.model, batch))
                for at, row in enumerate(rows):  # one answer's logits at a time: a large vocabulary fills the memory
                    first = len(prompts[row]) - 1  # the position that predicts the answer's first token
                    span = slice(first, first + len(ids[row]))
                    ours, theirs = (torch.log_softmax(forward.logits(head, side[at, span]), -1) for side in states)
                    found[row] = float((ours.exp() * (ours - theirs)).sum())
        return found


def written(tokenizer: Any, text: str, own: bool) -> dict[str, str]:
    """The text itself where it is `own` to this stage, and how it is shown where that differs."""
    shown = encoding.displayed(tokenizer, text)
    return ({"predict": text} if own else {}) | ({"displayed": shown} if shown != text else {})


def rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in numbers.items()}


def read_facts(path: Path, count: int) -> Sequence[dict[str, Any] | None]:
    """What is known of each test question; nothing where the data bring no facts."""
    return read_rows(path, count, "preprocess") if path.is_file() else [None] * count


def read_rows(path: Path, count: int, stage: str) -> list[dict[str, Any]]:
    """A row for each test sample; raises UserError where there are more or fewer."""
    rows = [row for _, row in json_files.read_lines(path)]
    if len(rows) != count:
        raise UserError(f"{path}: {len(rows)} rows for {count} test samples; run `dvc repro` to {stage} again")
    return rows


if __name__ == "__main__":
    typer.run(main)
