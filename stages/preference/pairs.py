"""Preference pairs as token ids, in the order of training, and in batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.preference.config import RmConfig
from stages.text import encoding, records
from stages.training import length_grouping


class EncodedPair(NamedTuple):
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the prompt with either answer."""
        return len(self.prompt) + len(self.chosen), len(self.prompt) + len(self.rejected)


def encode(tokenizer: Any, pairs: Sequence[records.Pair], config: RmConfig) -> list[EncodedPair]:
    limit = config.max_target_length
    return [
        EncodedPair(
            encoding.encode_prompt(tokenizer, pair.history, pair.instruction, config.max_source_length, "rm").ids,
            encoding.encode_answer(tokenizer, pair.chosen, limit).ids,
            encoding.encode_answer(tokenizer, pair.rejected, limit).ids,
        )
        for pair in pairs
    ]


def in_training_order(pairs: Sequence[EncodedPair], config: RmConfig, seed: int) -> list[EncodedPair]:
    """The pairs of all epochs, those of a batch of like length."""
    lengths = [max(pair.lengths) for pair in pairs]
    order = length_grouping.length_grouped_order(lengths, config.batch_size, config.num_train_epochs, seed)
    return [pairs[i] for i in order]


def by_length(pairs: Sequence[EncodedPair]) -> list[EncodedPair]:
    """The order of evaluation."""
    return sorted(pairs, key=lambda pair: max(pair.lengths))


def collate(pairs: Sequence[EncodedPair], pad: int) -> dict[str, Any]:
    """All chosen answers, then all rejected ones, as rows padded on the right: the shorter half apart from the longer.

    ids: a list of [rows, T]; place [2b]: where among their rows each answer stands.
    """
    import torch

    from stages.models import forward

    prompts = [pair.prompt for pair in pairs] * 2
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    order = sorted(range(len(answers)), key=forward.lengths(prompts, answers).__getitem__)
    halves = [order[: len(pairs)], order[len(pairs) :]]
    ids = [batch.ids for _, batch in forward.batches(prompts, answers, halves, pad, "cpu")]
    return {"ids": ids, "place": torch.tensor(order).argsort()}


def padding_share(pairs: Sequence[EncodedPair], batch_size: int) -> float:
    """Share of the positions that are padding when the pairs are collated in batches."""
    lengths = []
    for start in range(0, len(pairs), batch_size):
        lengths += sorted(length for pair in pairs[start : start + batch_size] for length in pair.lengths)
    return length_grouping.padding_share(lengths, batch_size)
