"""Measure the answers: how close each is to the doctor's, and what the reward model thinks of it.

    python -m stages.evaluate --help

It writes numbers per sample; means, intervals and differences are the report's.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.models import base_model, reward, stack
from stages.runtime import atomic, params, processes
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import encoding, records


class EvaluateConfig(params.Section):
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest rounds go first, the question survives."""
    max_target_length: params.Tokens = 256
    """Tokens of the answer, its EOS included."""
    batch_size: params.BatchSize = 64
    """Answers scored side by side."""


@command
def main(
    test: Annotated[Path, typer.Option(help="test samples (JSON lines)")],
    answers: Annotated[Path, typer.Option(help="folder of the answers, <name>.jsonl each")],
    name: Annotated[list[str], typer.Option(help="a model whose answers to measure")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    rm: Annotated[Path, typer.Option(help="folder of the reward adapter and its head")],
    adapter: Annotated[list[Path], typer.Option(help="folder of an adapter whose lineage to collect")],
    to: Annotated[Path, typer.Option(help="folder of the numbers: <name>.jsonl each, and lineage.json")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Measure every answer, and collect which model is made of what."""
    config = params.load(params_file, "evaluate", EvaluateConfig)
    samples = records.read_samples(test)
    rows = {model: read_answers(answers / f"{model}.jsonl", len(samples)) for model in name}
    frozen_base = base_model.read(base)
    folders = stack.resolve(frozen_base, [rm])

    from stages.metrics import text_metrics

    # every process scores everything: it is quick, and a base that is sharded needs all of them
    accelerator = processes.join()
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(accelerator.device), folders)
    head = reward.load_head(rm, accelerator.device)
    source, target = config.max_source_length, config.max_target_length
    prompts = [encoding.encode_prompt(tokenizer, s.history, s.instruction, source, "evaluate").ids for s in samples]
    rewards = {
        model_name: reward.score(
            model,
            head,
            prompts,
            [encoding.encode_answer(tokenizer, row["predict"], target).ids for row in rows[model_name]],
            tokenizer.pad_token_id,
            config.batch_size,
        )
        for model_name in name
    }
    if not accelerator.is_main_process:
        return

    for model_name in name:
        atomic.write_jsonl(
            to / f"{model_name}.jsonl",
            (
                {key: round(value, 4) for key, value in text_metrics.score(row["predict"], row["label"]).items()}
                | {
                    "response_length": len(row["predict"]),
                    "response_tokens": row["tokens"],
                    "eos": row["eos"],
                    "reward": round(value, 4),
                }
                for row, value in zip(rows[model_name], rewards[model_name], strict=True)
            ),
        )
    parts = {record.adapter: record.__dict__ for record in map(stack.lineage, [*adapter, rm])}
    identity = {"name": frozen_base.model.name, "identity": frozen_base.identity}
    atomic.write_json(to / "lineage.json", {"base": identity} | parts)


def read_answers(path: Path, count: int) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if len(rows) != count:
        raise UserError(f"{path}: {len(rows)} answers for {count} test samples; run `dvc repro` to predict again")
    return rows


if __name__ == "__main__":
    typer.run(main)
