"""The order in which training samples are read: shuffled, yet neighbours have like lengths, so little is padding.

It is transformers' LengthGroupedSampler, but known beforehand: the order of all epochs is fixed by (lengths, batch
size, seed). A trainer that reads it front to back needs no sampler state to resume, and several processes that divide
it see the same batches as one.
"""

import random
from collections.abc import Sequence
from math import ceil

MEGABATCH = 50
"""Batches that are sorted together: wide enough to group lengths, small enough to keep the shuffle."""


def length_grouped_order(
    lengths: Sequence[int], batch_size: int, epochs: float, seed: int, groups: Sequence[Sequence[int]] | None = None
) -> list[int]:
    """Indices of all epochs' samples; batches hold samples of like length and come in random order.

    Args:
        lengths: tokens of each sample.
        batch_size: samples of one optimizer step.
        epochs: a fraction at the end takes that part of the last shuffle.
        groups: samples of the same length that stay side by side, but where a batch or a window ends between them;
            otherwise each is alone.

    Returns:
        Every index once an epoch (the last fraction apart), later epochs after earlier ones but for the one window
        that straddles their border. A last batch that is short is filled up with the first samples of the stream:
        every step then has the same size, however many processes divide it.
    """
    generator = random.Random(seed)
    stream: list[int] = []
    for _ in range(ceil(epochs)):
        shuffled = list(groups or [[i] for i in range(len(lengths))])
        generator.shuffle(shuffled)
        stream += [i for group in shuffled for i in group]
    stream = stream[: round(epochs * len(lengths))]
    missing = -len(stream) % batch_size
    stream += [stream[i % len(stream)] for i in range(missing)]

    order: list[int] = []
    window = batch_size * MEGABATCH
    for start in range(0, len(stream), window):
        block = sorted(stream[start : start + window], key=lambda i: -lengths[i])
        batches = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
        generator.shuffle(batches)
        order += [i for batch in batches for i in batch]
    return order


def padding_share(batches: Sequence[Sequence[int]]) -> float:
    """Share of the positions that are padding when each batch's rows, of so many tokens, are padded to its longest."""
    used = sum(map(sum, batches))
    padded = sum(max(lengths) * len(lengths) for lengths in batches)
    return round(1 - used / padded, 4)
