"""The order of training samples: everyone comes up, neighbours are of a length, nothing depends on the run."""

import random
from collections import Counter

from stages.core import length_order

LENGTHS = [5 + i * 7919 % 496 for i in range(1000)]


def test_each_epoch_holds_every_sample_once():
    order = length_order.epochs(LENGTHS, batch_size=8, count=3, seed=1)
    assert Counter(order) == dict.fromkeys(range(1000), 3)
    assert Counter(order[:800]).most_common(1)[0][1] <= 1, "whole windows of the first epoch come before the second"
    part = length_order.epochs(LENGTHS, 8, 0.3, seed=1)
    assert len(set(part)) == 300
    assert len(part) == 304, "the last batch is filled up, so that processes can share every step evenly"


def test_the_seed_decides():
    assert length_order.epochs(LENGTHS, 8, 2, 1) == length_order.epochs(LENGTHS, 8, 2, 1)
    assert length_order.epochs(LENGTHS, 8, 2, 1) != length_order.epochs(LENGTHS, 8, 2, 2)


def test_lengths_are_alike_within_a_batch():
    order = length_order.epochs(LENGTHS, 16, 1.5, seed=1)
    shuffled = random.Random(2).sample(range(1000), 1000)
    grouped = length_order.padding_share(LENGTHS, order[:992], 16)
    assert grouped < 0.05 < 0.4 < length_order.padding_share(LENGTHS, shuffled, 16)
    firsts = [LENGTHS[order[start]] for start in range(0, 800, 16)]
    assert firsts != sorted(firsts, reverse=True), "batches come in random order"


def test_padding_share_by_hand():
    # batches (2, 4) and (3, 3) and (5): 17 tokens on 8 + 6 + 5 positions
    assert length_order.padding_share([2, 4, 3, 3, 5], range(5), 2) == 1 - 17 / 19
    assert length_order.padding_share([], [], 2) == 0.0
