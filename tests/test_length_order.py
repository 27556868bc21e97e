"""The order of training samples: everyone comes up, neighbours are of a length, nothing depends on the run."""

import random
from collections import Counter

import pytest

from stages.runtime.errors import UserError
from stages.training.config import TrainingConfig
from stages.training.length_grouping import Row, in_training_order, padding_share

LENGTHS = [5 + i * 7919 % 496 for i in range(1000)]


def alone(samples):
    return [Row([i], LENGTHS[sample]) for i, sample in enumerate(samples)]


def order_of(batch_size, epochs, seed, rows_of=alone, samples=range(1000)):
    config = TrainingConfig(per_device_train_batch_size=batch_size, num_train_epochs=epochs)
    return in_training_order(list(samples), rows_of, config, seed)


def test_each_epoch_holds_every_sample_once():
    order = order_of(8, epochs=3, seed=1)
    assert Counter(order) == dict.fromkeys(range(1000), 3)
    assert Counter(order[:800]).most_common(1)[0][1] <= 1, "whole windows of the first epoch come before the second"
    part = order_of(8, epochs=0.3, seed=1)
    assert len(set(part)) == 300
    assert len(part) == 304, "the last batch is filled up, so that processes can share every step evenly"


def test_few_samples_do_not_meet_their_copies_in_a_batch():
    order = order_of(8, epochs=3, seed=1, samples=range(33))
    assert Counter(order) >= Counter(dict.fromkeys(range(33), 3))
    distinct = [len(set(order[start : start + 8])) for start in range(0, len(order), 8)]
    assert sum(distinct) / len(distinct) > 7.5, "only a batch at the border of two epochs can hold a sample twice"


def test_no_sample_at_all_is_refused():
    with pytest.raises(UserError, match=r"num_train_epochs \(0\.1\) of 3 training samples"):
        order_of(8, epochs=0.1, seed=1, samples=range(3))


def test_windows_are_a_shuffle_and_no_plain_ranges():
    order = order_of(8, epochs=2, seed=1)
    first, second = set(order[:400]), set(order[1200:1600])  # a window of each epoch
    assert len(first) == len(second) == 400
    assert 100 < len(first & set(range(400))) < 220, "a random 400 of 1000 holds about 160 of the first 400"
    assert 100 < len(second & set(range(200, 600))) < 220
    assert 100 < len(first & second) < 220, "each epoch has its own shuffle"


def test_the_seed_decides():
    assert order_of(8, epochs=2, seed=1) == order_of(8, epochs=2, seed=1)
    assert order_of(8, epochs=2, seed=1) != order_of(8, epochs=2, seed=2)


def test_lengths_are_alike_within_a_batch():
    order = order_of(16, epochs=1.5, seed=1)
    shuffled = random.Random(2).sample(range(1000), 1000)
    grouped, random_order = (padding_share(some[:992], alone, 16) for some in (order, shuffled))
    assert grouped < 0.05 < 0.4 < random_order
    firsts = [LENGTHS[order[start]] for start in range(0, 800, 16)]
    assert firsts != sorted(firsts, reverse=True), "batches come in random order"


def test_rows_stay_together():
    rows = [Row([i, i + 1, i + 2], 10 + i) for i in range(0, 900, 3)]
    order = order_of(12, epochs=2, seed=1, rows_of=lambda _: rows, samples=range(900))
    assert Counter(order) == dict.fromkeys(range(900), 2)
    read = [order[i : i + 3] for i in range(0, 1800, 3)]
    members = [row.members for row in rows]
    assert read != sorted(members * 2)
    assert all(row in members for row in read), "12 and its windows are multiples of 3"


def test_padding_share_by_hand():
    # 17 tokens on 8 + 6 + 5 positions
    tokens = [2, 4, 3, 3, 5]
    assert padding_share(tokens, lambda some: [Row([i], n) for i, n in enumerate(some)], 2) == round(1 - 17 / 19, 4)
