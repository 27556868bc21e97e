"""Answer the test split with one stack of adapters.

python -m stages.predict --help
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.generation.decoding import Decoding
from stages.models import base_model, sharding, stack
from stages.runtime import atomic, params, processes
from stages.runtime.command import command
from stages.text import encoding, records

if TYPE_CHECKING:
    from stages.generation.generate import Answer


class PredictConfig(Decoding):
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    max_new_tokens: params.Tokens = 128
    """Tokens of the answer, its EOS included."""
    batch_size: params.BatchSize = 64
    """Answers generated side by side; in float32 the answers do not depend on it."""
    merge_adapters: bool = True
    """Add the adapters into the weights while generating: quicker, for a second copy of the layers with LoRA."""
    cuda_graphs: bool = False
    """On a GPU: record the pass of a token once per shape and replay it, in place of thousands of launches. Not yet run
    on a GPU."""


@command
def main(
    name: Annotated[str, typer.Option(help="base, sft or ppo: what to call the stack")],
    test: Annotated[Path, typer.Option(help="test samples (JSON lines)")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    to: Annotated[Path, typer.Option(help="answers (JSON lines)")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
    adapter: Annotated[list[Path], typer.Option(help="folder of an adapter, lowest first; the last is the top")] = [],
) -> None:
    """Answer every test question."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "predict", PredictConfig)
    samples = records.read_samples(test)
    frozen_base = base_model.read(base)
    processes.announce(f"predict@{name}")
    folders = stack.resolve(frozen_base, adapter, name if name in ("sft", "ppo") else None)

    from tqdm import tqdm

    accelerator = processes.join()
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(accelerator.device), folders)
    prompts = [encode(tokenizer, sample, config) for sample in samples]
    mine = processes.share(range(len(samples)), evenly=sharding.is_sharded(model))
    found = []
    bar = tqdm(total=len(mine), desc=f"predict@{name}", unit="answer", disable=not accelerator.is_main_process)
    with bar:
        keys = [f"{seed}/{i}" for i in mine]
        for i, answer in answers_of(model, tokenizer, [prompts[i] for i in mine], keys, config):
            found.append((mine[i], answer))
            bar.update()
    answers = dict(answered for part in processes.everyones(found) for answered in part)
    if not accelerator.is_main_process:
        return

    atomic.write_jsonl(
        to,
        (row(sample, answers[i], tokenizer) for i, sample in enumerate(samples)),
    )


def answers_of(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], keys: Sequence[str], config: PredictConfig
) -> "Iterator[tuple[int, Answer]]":
    """Answer the prompts under the active adapters; yields (its index, its answer), long prompts first.

    Args:
        keys: one per prompt; what seeds its randomness.
    """
    from stages.generation.generate import eos_ids, generate

    with stack.merged(model, only_if=config.merge_adapters):
        yield from generate(
            model,
            prompts,
            keys,
            config,
            config.max_new_tokens,
            config.batch_size,
            eos_ids(model, tokenizer),
            tokenizer.pad_token_id,
            with_graphs=config.cuda_graphs,
        )


def row(sample: records.Sample, answer: Any, tokenizer: Any) -> dict[str, Any]:
    """The line of an answer."""
    return {
        "dialogue": sample.dialogue,
        "history": sample.history,
        "instruction": sample.instruction,
        "label": sample.output,
        "predict": tokenizer.decode(answer.ids, skip_special_tokens=True).strip(),
        "tokens": len(answer.ids),
        "eos": answer.ended,
    }


def encode(tokenizer: Any, sample: records.Sample, config: PredictConfig) -> list[int]:
    limit = config.max_source_length
    return encoding.encode_prompt(tokenizer, sample.history, sample.instruction, limit, "predict").ids


if __name__ == "__main__":
    typer.run(main)
