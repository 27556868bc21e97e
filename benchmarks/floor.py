"""Each stage of the last run beside its floor: the matrix products alone that its real tokens need, on this machine.

    python -m benchmarks.floor     # in a checkout after `make repro`

The floor has the linear layers of the frozen base on tokens without padding, and where a stage trains, as many products
again for the gradients of the activations. It has no attention, norms, softmax, sampling, adapters or optimizer, and no
start of Python and torch, some seconds of every stage.
"""

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.ppo_setup import seconds
from stages import ppo, predict, sft
from stages.metrics.definitions import MODELS
from stages.models import base_model
from stages.preference import pairs
from stages.preference.config import RmConfig
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.runtime.command import costs
from stages.text import held_out, json_files, records
from stages.training import length_grouping, samples

DATA, REPORTS, PARAMS = Path("data/processed"), Path("reports"), Path("params.yaml")
WIDE = 1024
"""Tokens of one pass where a stage can choose."""
ROUNDS = 10


class Work(NamedTuple):
    """Tokens, or CPU seconds per token, through the layers and through the LM head."""

    layers: float
    head: float = 0


def main() -> None:
    torch.set_num_threads(1)  # the fewest CPU seconds: two threads spin while they wait for each other
    base = base_model.read(Path("models/base"))
    network, tokenizer = base.causal_lm(), base.tokenizer()
    needed = {"sft": [(sft_work(tokenizer), WIDE)], "rm": [(rm_work(tokenizer), WIDE)], "ppo": ppo_work(tokenizer)}
    needed |= {f"predict@{name}": predict_work(tokenizer, name) for name in MODELS}
    found = speeds(network, {batch for works in needed.values() for _, batch in works})
    spent = costs()
    print(f"{'stage':16}{'CPU s':>10}{'floor':>10}{'times':>10}")
    for stage, works in needed.items():
        floor = sum(work.layers * found[batch].layers + work.head * found[batch].head for work, batch in works)
        print(f"{stage:16}{spent[stage]['cpu_seconds']:10.1f}{floor:10.1f}{spent[stage]['cpu_seconds'] / floor:10.1f}")


def speeds(network: Any, batches: Iterable[int]) -> dict[int, Work]:
    """CPU seconds per token, by how many tokens a product has: the quickest of ROUNDS.

    The rounds lie apart, since a neighbour on the same processor can slow the products for seconds; prints how much.
    """
    layers = [m.weight.detach() for m in network.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    head = [network.get_output_embeddings().weight.detach()]
    rounds = []
    for _ in range(ROUNDS):
        rounds.append({batch: Work(per_token(layers, batch), per_token(head, batch)) for batch in sorted(batches)})
        time.sleep(0.5)
    print("tokens side by side: µs per token in the layers, in each round")
    for batch in sorted(batches):
        print(f"{batch:8}: " + " ".join(f"{each[batch].layers * 1e6:.1f}" for each in rounds))
    return {batch: Work(*map(min, zip(*(each[batch] for each in rounds), strict=True))) for batch in sorted(batches)}


def per_token(weights: Sequence[torch.Tensor], batch: int) -> float:
    inputs = {w.shape[1]: torch.randn(batch, w.shape[1]) for w in weights}
    return seconds(lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights], 0.1) / batch


def sft_work(tokenizer: Any) -> Work:
    config = params.load(PARAMS, "sft", sft.SftConfig)
    files = [records.read_samples(DATA / f"{split}.jsonl") for split in ("train", "validate")]
    dialogues = [(number, dialogue) for number, file in enumerate(files) for dialogue in records.dialogues(file)]
    encoded = [sft.encode(tokenizer, sample, config) for file in files for sample in file]
    dev, train = held_out.split(dialogues, config.dev_ratio, params.load(PARAMS, "data.seed", int))

    def work(chosen: Sequence[samples.EncodedSample]) -> Work:
        tokens = read(chosen, samples.rows_of, config.per_device_train_batch_size)
        return Work(tokens, sum(len(sample.answer.ids) for sample in chosen))

    seed = params.load(PARAMS, "seed", int)
    trained = work(length_grouping.in_training_order([encoded[i] for i in train], samples.rows_of, config, seed))
    return trained_and_evaluated(trained, work([encoded[i] for i in dev]), "sft")


def rm_work(tokenizer: Any) -> Work:
    config = params.load(PARAMS, "rm", RmConfig)
    choosing, reported = held_out.parts(records.read_pairs(DATA / "preferences_validate.jsonl"))
    training = records.read_pairs(DATA / "preferences_train.jsonl")

    def work(chosen: Sequence[pairs.EncodedPair]) -> Work:
        return Work(read(chosen, pairs.rows_of, config.per_device_train_batch_size))

    encode = partial(pairs.encode, tokenizer, config=config)
    seed = params.load(PARAMS, "seed", int)
    trained = work(length_grouping.in_training_order(encode(training), pairs.rows_of, config, seed))
    found = trained_and_evaluated(trained, work(encode(choosing)), "rm")
    return Work(found.layers + work(encode(reported)).layers)


def read(chosen: Sequence[Any], rows_of: Callable[[Sequence[Any]], list[length_grouping.Row]], size: int) -> int:
    """Tokens of the rows of all batches."""
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    return sum(row.tokens for batch in batches for row in rows_of(batch))


def trained_and_evaluated(trained: Work, evaluated: Work, stage: str) -> Work:
    times = len(curve(stage, "eval_curve"))
    return Work(*(2 * a + times * b for a, b in zip(trained, evaluated, strict=True)))


def curve(stage: str, name: str) -> list[dict[str, str]]:
    with (REPORTS / stage / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ppo_work(tokenizer: Any) -> list[tuple[Work, int]]:
    """Of whole texts; and of responses that are sampled token by token, so many side by side."""
    config = params.load(PARAMS, "ppo", PpoConfig)
    given = [sample for split in ("train", "validate") for sample in records.read_samples(DATA / f"{split}.jsonl")]
    prompt = sum(len(ppo.encode(tokenizer, sample, config)) for sample in given) / len(given)
    lengths = [float(row["response_length"]) for row in curve("ppo", "curve")]
    episodes, first = len(lengths) * config.batch_size, config.normalization_samples
    learned, extra = sum(lengths) * config.batch_size, first * lengths[0]  # the extra ones set the reward's scale
    text = episodes * prompt + learned
    passes = 3 + 2 * config.num_ppo_epochs  # policy, reference and reward model; then forward and backward
    wide = Work(
        passes * text + (episodes + first) * prompt + first * prompt + extra,  # all prompts once more, to answer them
        (passes - 1) * learned,
    )
    sampled = Work(learned + extra, learned + extra)
    return [(wide, WIDE), (sampled, config.local_rollout_forward_batch_size)]


def predict_work(tokenizer: Any, name: str) -> list[tuple[Work, int]]:
    config = params.load(PARAMS, "predict", predict.PredictConfig)
    prompts = sum(
        len(predict.encode(tokenizer, sample, config)) for sample in records.read_samples(DATA / "test.jsonl")
    )
    answered = sum(row["tokens"] for _, row in json_files.read_lines(REPORTS / "answers" / f"{name}.jsonl"))
    return [(Work(prompts), WIDE), (Work(answered, answered), config.batch_size)]


if __name__ == "__main__":
    main()
