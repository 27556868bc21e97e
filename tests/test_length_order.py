"""The order of training samples: everyone comes up, neighbours are of a length, nothing depends on the run."""

import random
from collections import Counter

from stages.training.length_grouping import length_grouped_order, padding_share

LENGTHS = [5 + i * 7919 % 496 for i in range(1000)]


def test_each_epoch_holds_every_sample_once():
    order = length_grouped_order(LENGTHS, batch_size=8, epochs=3, seed=1)
    assert Counter(order) == dict.fromkeys(range(1000), 3)
    assert Counter(order[:800]).most_common(1)[0][1] <= 1, "whole windows of the first epoch come before the second"
    part = length_grouped_order(LENGTHS, 8, 0.3, seed=1)
    assert len(set(part)) == 300
    assert len(part) == 304, "the last batch is filled up, so that processes can share every step evenly"


def test_windows_are_a_shuffle_and_no_plain_ranges():
    order = length_grouped_order(LENGTHS, batch_size=8, epochs=2, seed=1)
    first, second = set(order[:400]), set(order[1200:1600])  # a window of each epoch
    assert len(first) == len(second) == 400
    assert 100 < len(first & set(range(400))) < 220, "a random 400 of 1000 holds about 160 of the first 400"
    assert 100 < len(second & set(range(200, 600))) < 220
    assert 100 < len(first & second) < 220, "each epoch has its own shuffle"


def test_the_seed_decides():
    assert length_grouped_order(LENGTHS, 8, 2, 1) == length_grouped_order(LENGTHS, 8, 2, 1)
    assert length_grouped_order(LENGTHS, 8, 2, 1) != length_grouped_order(LENGTHS, 8, 2, 2)


def test_lengths_are_alike_within_a_batch():
    order = length_grouped_order(LENGTHS, 16, 1.5, seed=1)
    shuffled = random.Random(2).sample(range(1000), 1000)
    grouped, random_order = (
        padding_share([[LENGTHS[i] for i in some[start : start + 16]] for start in range(0, 992, 16)])
        for some in (order, shuffled)
    )
    assert grouped < 0.05 < 0.4 < random_order
    firsts = [LENGTHS[order[start]] for start in range(0, 800, 16)]
    assert firsts != sorted(firsts, reverse=True), "batches come in random order"


def test_groups_stay_side_by_side():
    lengths = [10 + i // 3 for i in range(900)]
    groups = [[i, i + 1, i + 2] for i in range(0, 900, 3)]
    order = length_grouped_order(lengths, 12, 2, seed=1, groups=groups)
    assert Counter(order) == dict.fromkeys(range(900), 2)
    assert [order[i : i + 3] for i in range(0, 1800, 3)] != sorted(groups * 2)
    assert all(order[i : i + 3] in groups for i in range(0, 1800, 3)), "12 and its windows are multiples of 3"


def test_padding_share_by_hand():
    # 17 tokens on 8 + 6 + 5 positions
    assert padding_share([[2, 4], [3, 3], [5]]) == round(1 - 17 / 19, 4)
