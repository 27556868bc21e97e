"""Intervals from draws: against the textbook's formula, and against themselves."""

import numpy as np
import pytest

from stages.metrics import bootstrap


def test_agrees_with_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap.mean(values, 20_000, seed=1)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.006)
    assert found.high == pytest.approx(values.mean() + half, abs=0.006)


def test_same_seed_same_numbers_whatever_the_block(monkeypatch):
    values = list(range(50))
    whole = bootstrap.mean(values, 300, seed=7)
    assert bootstrap.mean(values, 300, seed=7) == whole
    assert bootstrap.mean(values, 300, seed=8) != whole
    monkeypatch.setattr(bootstrap, "BLOCK", 120)
    assert bootstrap.mean(values, 300, seed=7) == whole


def test_pairing_takes_the_samples_own_difficulty_out():
    random = np.random.default_rng(3)
    before = random.normal(20, 10, 100)
    after = before + random.normal(0.5, 0.5, 100)
    paired = bootstrap.difference(before, after, 500, seed=0)
    assert paired.value == pytest.approx((after - before).mean())
    assert paired.low > 0 and paired.beyond_chance and paired.high - paired.low < 0.3
    assert not bootstrap.difference(before, before[::-1], 500, seed=0).beyond_chance
    with pytest.raises(ValueError, match="not 2 and 3"):
        bootstrap.difference([1, 2], [1, 2, 3], 10, seed=0)


def test_a_constant_has_no_width_and_nothing_is_an_error():
    assert bootstrap.mean([3, 3, 3], 50, seed=0) == (3, 3, 3)
    assert not bootstrap.mean([0, 0], 50, seed=0).beyond_chance
    with pytest.raises(ValueError, match="no values"):
        bootstrap.mean([], 50, seed=0)
