"""What the reward model thinks of the three models' answers to the test questions.

    python -m stages.score --help
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core import atomic, base_model, chat_format, params, processes, records, reward, stack
from stages.core.command import command
from stages.core.errors import UserError


@dataclass(frozen=True)
class Score:
    max_source_length: int
    """Tokens of history and question; the oldest rounds go first, the question survives."""
    max_target_length: int
    """Tokens of the answer, its EOS included."""
    batch_size: int
    bootstrap_samples: int
    """Resamples behind each 95 % interval."""

    def __post_init__(self) -> None:
        params.above_zero(self, "max_source_length", "max_target_length", "batch_size", "bootstrap_samples")


@command
def main(
    test: Annotated[Path, typer.Option(help="test samples (JSON lines)")],
    predictions: Annotated[Path, typer.Option(help="folder of the answers, <name>.jsonl each")],
    name: Annotated[list[str], typer.Option(help="a model whose answers to score")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    rm: Annotated[Path, typer.Option(help="folder of the reward adapter and its head")],
    adapter: Annotated[list[Path], typer.Option(help="folder of an adapter whose lineage to collect")],
    to: Annotated[Path, typer.Option(help="a row per sample: each model's reward (JSON lines)")],
    metrics: Annotated[Path, typer.Option(help="mean rewards and their 95 % intervals (JSON)")],
    lineage: Annotated[Path, typer.Option(help="which adapters belong together, and what made them (JSON)")],
    config: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Score every answer with the reward model, and collect which model is made of what."""
    seed = params.load(config, "seed", int)
    knobs = params.load(config, "score", Score)
    samples = records.read_samples(test)
    answers = {model: read_answers(predictions / f"{model}.jsonl", len(samples)) for model in name}
    origin = base_model.read(base)
    folders = stack.resolve(origin, [rm])

    import torch

    from stages.core import bootstrap
    from stages.core.ppo import views

    here = processes.join()  # each scores everything: it is quick, and a base that is shared out needs all of them
    device = here.device
    tokenizer = origin.tokenizer()
    model = stack.load(origin.causal_lm(device), folders)
    head = reward.load_head(rm, device)
    prompts = [
        chat_format.encode_prompt(tokenizer, s.history, s.instruction, knobs.max_source_length, "score").ids
        for s in samples
    ]
    rewards: dict[str, list[float]] = {}
    for which, texts in answers.items():
        encoded = [chat_format.encode_answer(tokenizer, text, knobs.max_target_length).ids for text in texts]
        values = [0.0] * len(samples)
        by_length = sorted(range(len(samples)), key=lambda i: len(prompts[i]) + len(encoded[i]))
        for start in range(0, len(by_length), knobs.batch_size):
            rows = by_length[start : start + knobs.batch_size]
            batch = views.to_batch(
                [prompts[i] for i in rows], [encoded[i] for i in rows], tokenizer.pad_token_id, device
            )
            with torch.no_grad():
                for i, value in zip(rows, views.scores(model, batch, head).tolist(), strict=True):
                    values[i] = round(value, 4)
        rewards[which] = values
    if not here.is_main_process:
        return

    atomic.write_jsonl(to, ({model: rewards[model][i] for model in name} for i in range(len(samples))))
    intervals = {model: bootstrap.mean(values, knobs.bootstrap_samples, seed) for model, values in rewards.items()}
    result: dict[str, Any] = {model: round(i.value, 4) for model, i in intervals.items()}
    result["ci95"] = {model: {"low": round(i.low, 4), "high": round(i.high, 4)} for model, i in intervals.items()}
    atomic.write_json(metrics, result)
    parts = {record.adapter: record.__dict__ for record in map(stack.lineage, [*adapter, rm])}
    atomic.write_json(lineage, {"base": {"name": origin.model.name, "identity": origin.identity}} | parts)


def read_answers(path: Path, count: int) -> list[str]:
    texts = [json.loads(line)["predict"] for line in path.read_text(encoding="utf-8").splitlines()]
    if len(texts) != count:
        raise UserError(f"{path}: {len(texts)} answers for {count} test samples; run `dvc repro` to predict again")
    return texts


if __name__ == "__main__":
    typer.run(main)
