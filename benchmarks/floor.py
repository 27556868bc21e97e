"""Each stage of the last run beside its floor: the matrix products alone that its real tokens need, on this machine.

    python -m benchmarks.floor     # in a checkout after `make repro`

The floor has the linear layers of the frozen base on tokens without padding, and where a stage trains, as many products
again for the gradients of the activations. It has no attention, norms, softmax, sampling, adapters or optimizer, and no
start of Python and torch, some seconds of every stage.
"""

import csv
from collections.abc import Callable, Sequence
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


class Work(NamedTuple):
    """Tokens through the layers and through the LM head."""

    layers: float
    head: float = 0


def main() -> None:
    base = base_model.read(Path("models/base"))
    network, tokenizer = base.causal_lm(), base.tokenizer()
    layers = [m.weight.detach() for m in network.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    head = [network.get_output_embeddings().weight.detach()]

    def time_of(work: Work, batch: int = WIDE) -> float:
        return work.layers * per_token(layers, batch) + work.head * per_token(head, batch)

    floors = {"sft": time_of(sft_work(tokenizer)), "rm": time_of(rm_work(tokenizer))}
    wide, decoded, side_by_side = ppo_work(tokenizer)
    floors["ppo"] = time_of(wide) + time_of(decoded, side_by_side)
    for name in MODELS:
        wide, decoded, side_by_side = predict_work(tokenizer, name)
        floors[f"predict@{name}"] = time_of(wide) + time_of(decoded, side_by_side)
    spent = costs()
    print(f"{'stage':16}{'CPU s':>10}{'floor':>10}{'times':>10}")
    for stage, floor in floors.items():
        found = spent[stage]["cpu_seconds"]
        print(f"{stage:16}{found:10.1f}{floor:10.1f}{found / floor:10.1f}")


def per_token(weights: Sequence[torch.Tensor], batch: int) -> float:
    inputs = {w.shape[1]: torch.randn(batch, w.shape[1]) for w in weights}
    return seconds(lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights]) / batch


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


def ppo_work(tokenizer: Any) -> tuple[Work, Work, int]:
    """Of whole texts; of responses that are sampled token by token; and how many responses are sampled side by side."""
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
    return wide, Work(learned + extra, learned + extra), config.local_rollout_forward_batch_size


def predict_work(tokenizer: Any, name: str) -> tuple[Work, Work, int]:
    config = params.load(PARAMS, "predict", predict.PredictConfig)
    prompts = sum(
        len(predict.encode(tokenizer, sample, config)) for sample in records.read_samples(DATA / "test.jsonl")
    )
    answered = sum(row["tokens"] for _, row in json_files.read_lines(REPORTS / "answers" / f"{name}.jsonl"))
    return Work(prompts), Work(answered, answered), config.batch_size


if __name__ == "__main__":
    main()
