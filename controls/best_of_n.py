"""Best of n: the SFT model answers n times, and the reward model takes the best; nothing is trained.

python -m controls.best_of_n --help
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from controls import judges, options
from controls.models import MODELS, SIZES
from stages import predict
from stages.models import reward, stack
from stages.runtime import atomic, params, processes
from stages.runtime.command import command
from stages.text import records


@command
def main(
    test: Annotated[Path, typer.Option(help="test samples (JSON lines)")],
    base: options.Base,
    sft: options.Sft,
    proxy: options.Proxy,
    gold: options.Gold,
    to: Annotated[Path, typer.Option(help="folder of the best answers (JSON lines)")],
    log: Annotated[Path, typer.Option(help="each question's expected rewards at each n (JSON lines)")],
    params_file: options.Params,
) -> None:
    """Sample, score by both reward models, and keep the best by the first."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "predict", predict.PredictConfig)
    samples = records.read_samples(test)
    frozen_base = judges.check(base, [proxy, gold])
    folders = stack.resolve(frozen_base, [sft])

    processes.announce("best_of_n")
    device, most = processes.device(), max(SIZES)
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(device), folders)
    prompts = [predict.encode(tokenizer, sample, config) for sample in samples for _ in range(most)]
    keys = [f"{seed}/best-of-n/{i}/{k}" for i in range(len(samples)) for k in range(most)]
    answers: list[Any] = [None] * len(prompts)
    for i, answer in predict.answers_of(model, tokenizer, prompts, keys, config):
        answers[i] = answer
    heads = {name: judges.add(model, folder, name, device) for name, folder in (("proxy", proxy), ("gold", gold))}
    scores = {}
    for name, head in heads.items():
        with stack.active(model, [name]):
            scores[name] = reward.score_by_prompt(
                model, head, prompts, [answer.ids for answer in answers], tokenizer.pad_token_id, TOKENS_PER_BATCH
            )
    if not processes.is_first():
        return

    rows: list[dict[int, dict[str, float]]] = []
    best: dict[int, list[Any]] = {model.n: [] for model in MODELS if model.n}
    for start in range(0, len(answers), most):
        by_proxy, by_gold = (scores[name][start : start + most] for name in ("proxy", "gold"))
        rows.append({n: round_of(by_proxy, by_gold, n) for n in SIZES})
        for n, chosen in best.items():
            chosen.append(answers[start + max(range(n), key=lambda k: by_proxy[k])])
    with atomic.folder(to) as folder:
        for n, chosen in best.items():
            lines = (predict.row(sample, answer, tokenizer) for sample, answer in zip(samples, chosen, strict=True))
            atomic.write_jsonl(folder / f"best_of_{n}.jsonl", lines)
    atomic.write_jsonl(log, rows)


TOKENS_PER_BATCH = 2048
"""Of a pass that scores, padding included."""


def round_of(by_proxy: Sequence[float], by_gold: Sequence[float], n: int) -> dict[str, float]:
    """What both reward models give the best of n by the first, expected over all draws of n."""
    return {"reward": round(expected(by_proxy, by_proxy, n), 4), "gold": round(expected(by_proxy, by_gold, n), 4)}


def expected(ranked_by: Sequence[float], values: Sequence[float], n: int) -> float:
    """The mean of `values` at the highest of `ranked_by`, over all subsets of n of the N answers.

    The answer of rank k (from 1, the lowest) is the highest of C(k − 1, n − 1) of the C(N, n) subsets.
    """
    order = sorted(range(len(values)), key=lambda i: ranked_by[i])
    subsets = math.comb(len(values), n)
    return sum(math.comb(k, n - 1) / subsets * values[i] for k, i in enumerate(order))


if __name__ == "__main__":
    typer.run(main)
