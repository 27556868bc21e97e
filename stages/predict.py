"""Answer the test split with one stack of adapters, and measure the answers.

    python -m stages.predict --help
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core import atomic, base_model, chat_format, params, processes, records, sharding, stack
from stages.core.command import command
from stages.core.generation import Decoding


@dataclass(frozen=True)
class Predict(Decoding):
    max_source_length: int
    """Tokens of history and question; the oldest rounds go first, the question survives."""
    max_new_tokens: int
    batch_size: int
    """Answers generated side by side; the answers do not depend on it."""
    merge_adapters: bool
    """Add the adapters into the weights while generating: quicker, for a second copy of the layers with LoRA."""
    bootstrap_samples: int
    """Resamples behind each 95 % interval."""

    def __post_init__(self) -> None:
        super().__post_init__()
        params.above_zero(self, "max_source_length", "max_new_tokens", "batch_size", "bootstrap_samples")


@command
def main(
    name: Annotated[str, typer.Option(help="base, sft or ppo: what to call the stack")],
    test: Annotated[Path, typer.Option(help="test samples (JSON lines)")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    to: Annotated[Path, typer.Option(help="answers (JSON lines)")],
    scores: Annotated[Path, typer.Option(help="scores of each answer (JSON lines)")],
    metrics: Annotated[Path, typer.Option(help="means and their 95 % intervals (JSON)")],
    config: Annotated[Path, typer.Option("--params", help="parameters")],
    adapter: Annotated[list[Path], typer.Option(help="folder of an adapter, lowest first; the last is the top")] = [],
) -> None:
    """Answer every test question and score the answers against the doctor's."""
    seed = params.load(config, "seed", int)
    knobs = params.load(config, "predict", Predict)
    samples = records.read_samples(test)
    origin = base_model.read(base)
    folders = stack.resolve(origin, adapter)

    from accelerate.utils import gather_object
    from tqdm import tqdm

    from stages.core.generation import Answer, eos_ids, generate

    here = processes.join()
    tokenizer = origin.tokenizer()
    model = stack.load(origin.causal_lm(here.device), folders)
    prompts = [encode(tokenizer, sample, knobs) for sample in samples]
    mine = share(len(samples), here.process_index, here.num_processes, sharding.is_sharded(model))
    found: list[tuple[int, Answer]] = []
    bar = tqdm(total=len(mine), desc=f"predict@{name}", unit="answer", disable=not here.is_main_process)
    with stack.merged(model, only_if=knobs.merge_adapters), bar:
        for i, answer in generate(
            model,
            [prompts[i] for i in mine],
            [f"{seed}/{i}" for i in mine],
            knobs,
            knobs.max_new_tokens,
            knobs.batch_size,
            eos_ids(model, tokenizer),
            tokenizer.pad_token_id,
        ):
            found.append((mine[i], answer))
            bar.update()
    answers = dict(gather_object(found))
    if not here.is_main_process:
        return

    texts = [tokenizer.decode(answers[i].ids, skip_special_tokens=True).strip() for i in range(len(samples))]
    rows = [
        {"history": s.history, "instruction": s.instruction, "label": s.output, "predict": text}
        for s, text in zip(samples, texts, strict=True)
    ]
    each = [score(text, s.output, answers[i]) for i, (s, text) in enumerate(zip(samples, texts, strict=True))]
    atomic.write_jsonl(to, rows)
    atomic.write_jsonl(scores, each)
    result = summarise(each, texts, knobs.bootstrap_samples, seed)
    atomic.write_json(metrics, result)
    print({key: value for key, value in result.items() if key != "ci95"})


def share(count: int, process: int, processes: int, evenly: bool) -> list[int]:
    """The samples of this process; with `evenly`, one is answered twice where some would get less than others."""
    mine = list(range(process, count, processes))
    return [*mine, 0] if evenly and len(mine) < -(-count // processes) else mine


def encode(tokenizer: Any, sample: records.Sample, knobs: Predict) -> list[int]:
    limit = knobs.max_source_length
    return chat_format.encode_prompt(tokenizer, sample.history, sample.instruction, limit, "predict").ids


def score(text: str, label: str, answer: Any) -> dict[str, Any]:
    from stages.core import metrics

    return {key: round(value, 4) for key, value in metrics.score(text, label).items()} | {
        "response_length": len(text),
        "response_tokens": len(answer.ids),
        "eos": answer.ended,
    }


def summarise(each: list[dict[str, Any]], texts: list[str], draws: int, seed: int) -> dict[str, Any]:
    """Means over the samples, distinct-2 over all answers, and a 95 % interval of each."""
    from stages.core import bootstrap, metrics

    intervals = {
        column: bootstrap.mean([float(row[key]) for row in each], draws, seed)
        for column, key in [*((name, name) for name in MEANS), ("eos_rate", "eos")]
    }
    intervals["distinct-2"] = metrics.distinct_2(texts)
    return (
        {name: round(interval.value, 4) for name, interval in intervals.items()}
        | {"samples": len(each)}
        | {"ci95": {n: {"low": round(i.low, 4), "high": round(i.high, 4)} for n, i in intervals.items()}}
    )


MEANS = ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "response_length", "response_tokens")

if __name__ == "__main__":
    typer.run(main)
