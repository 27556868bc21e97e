"""Preference pairs as token ids, in the order of training."""

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
    def tokens(self) -> int:
        """Of the prompt and both answers."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


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
    lengths = [pair.tokens for pair in pairs]
    order = length_grouping.length_grouped_order(lengths, config.batch_size, config.num_train_epochs, seed)
    return [pairs[i] for i in order]


def by_length(pairs: Sequence[EncodedPair]) -> list[EncodedPair]:
    """The order of evaluation."""
    return sorted(pairs, key=lambda pair: pair.tokens)


def padding_share(pairs: Sequence[EncodedPair], batch_size: int) -> float:
    """Share of the positions that are padding when each pair is a row."""
    return length_grouping.padding_share([pair.tokens for pair in pairs], batch_size)
