"""The order in which training samples are read: shuffled, yet neighbours have like lengths, so little is padding.

It is transformers' LengthGroupedSampler, but known beforehand: the order of all epochs is fixed by (lengths, batch
size, seed). A trainer that reads it front to back needs no sampler state to resume, and several processes that divide
it see the same batches as one.
"""

import random
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple, TypeVar

from stages.runtime.errors import UserError
from stages.training.config import TrainingConfig

MEGABATCH = 50
"""Batches that are sorted together: wide enough to group lengths, small enough to keep the shuffle."""

Sample = TypeVar("Sample")


class Row(NamedTuple):
    """What a batch reads as one row of tokens."""

    members: list[int]
    """Indices of the samples that share it; they stay side by side, but where a batch or a window ends between them."""
    tokens: int


def in_training_order(
    samples: Sequence[Sample],
    rows_of: Callable[[Sequence[Sample]], list[Row]],
    config: TrainingConfig,
    seed: int,
) -> list[Sample]:
    """The samples of all epochs; batches hold rows of like length and come in random order.

    Returns:
        Every sample once an epoch (a fraction at the end takes that part of the last shuffle), later epochs after
        earlier ones but for the one window that straddles their border. A last batch that is short is filled up with
        the first samples of the stream: every step then has the same size, however many processes divide it.

    Raises:
        UserError: num_train_epochs is too small a share of the samples to read even one.
    """
    generator = random.Random(seed)
    rows = rows_of(samples)
    tokens = {i: row.tokens for row in rows for i in row.members}
    stream: list[int] = []
    for _ in range(ceil(config.num_train_epochs)):
        shuffled = list(rows)
        generator.shuffle(shuffled)
        stream += [i for row in shuffled for i in row.members]
    stream = stream[: round(config.num_train_epochs * len(samples))]
    if not stream:
        raise UserError(
            f"num_train_epochs ({config.num_train_epochs:g}) of {len(samples)} training samples are none: set it higher"
        )
    missing = -len(stream) % config.batch_size
    stream += [stream[i % len(stream)] for i in range(missing)]

    order: list[int] = []
    # Never more than an epoch: the copies of a sample have one length, and would come into one batch.
    window = config.batch_size * min(MEGABATCH, max(1, len(samples) // config.batch_size))
    for start in range(0, len(stream), window):
        block = sorted(stream[start : start + window], key=lambda i: -tokens[i])
        batches = _cut(block, config.batch_size)
        generator.shuffle(batches)
        order += [i for batch in batches for i in batch]
    return [samples[i] for i in order]


def by_length(samples: Sequence[Sample], rows_of: Callable[[Sequence[Sample]], list[Row]]) -> list[Sample]:
    """The order of evaluation."""
    return [samples[i] for row in sorted(rows_of(samples), key=lambda row: row.tokens) for i in row.members]


def padding_share(
    samples: Sequence[Sample], rows_of: Callable[[Sequence[Sample]], list[Row]], batch_size: int
) -> float:
    """Share of the positions that are padding when the samples are read in batches, each padded to its longest row."""
    batches = [[row.tokens for row in rows_of(batch)] for batch in _cut(samples, batch_size)]
    used = sum(map(sum, batches))
    padded = sum(max(tokens) * len(tokens) for tokens in batches)
    return round(1 - used / padded, 4)


def _cut(samples: Sequence[Sample], size: int) -> list[Sequence[Sample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]
