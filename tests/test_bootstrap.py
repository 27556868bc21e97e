"""Intervals: against textbook formulas, against themselves, and what they refuse to prove."""

import math
from itertools import combinations

import numpy as np
import pytest

from stages.metrics import bootstrap, length_control
from stages.metrics.bootstrap import Interval
from stages.metrics.diversity import Distinct2
from stages.metrics.multiple import holm


def each(count):
    """Every sample in a dialogue of its own."""
    return list(range(count))


def test_agrees_with_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap.mean(values, each(400), 20_000, seed=1)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean()) and found.units == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.006)
    assert found.high == pytest.approx(values.mean() + half, abs=0.006)


def test_samples_of_one_dialogue_count_as_one():
    """Ten copies of each value are no more evidence than the values themselves."""
    values = np.random.default_rng(0).normal(5, 2, 40)
    copies, dialogues = np.repeat(values, 10), np.repeat(np.arange(40), 10)
    once, ten_times = bootstrap.mean(values, each(40), 2000, 1), bootstrap.mean(copies, dialogues, 2000, 1)
    assert ten_times == pytest.approx(once) and ten_times.units == 40
    alone = bootstrap.mean(copies, each(400), 2000, 1)
    assert alone.high - alone.low < 0.4 * (once.high - once.low)


def test_dialogues_of_different_length_weigh_by_their_samples():
    found = bootstrap.mean([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"], 4000, 0)
    assert found.value == 2.0
    assert (found.low, found.high) == (1.0, 5.0), "two dialogues: one of them may be drawn twice"


def test_same_seed_same_numbers_whatever_the_block(monkeypatch):
    values = list(range(50))
    whole = bootstrap.mean(values, each(50), 300, seed=7)
    assert bootstrap.mean(values, each(50), 300, seed=7) == whole
    assert bootstrap.mean(values, each(50), 300, seed=8) != whole
    monkeypatch.setattr(bootstrap, "BLOCK", 120)
    assert bootstrap.mean(values, each(50), 300, seed=7) == whole


def test_pairing_takes_the_samples_own_difficulty_out():
    random = np.random.default_rng(3)
    before = random.normal(20, 10, 100)
    after = before + random.normal(0.5, 0.5, 100)
    paired = bootstrap.difference(before, after, each(100), 500, seed=0)
    assert paired.value == pytest.approx((after - before).mean())
    assert paired.low > 0 and paired.beyond_chance and paired.high - paired.low < 0.3 and paired.p < 1e-6
    backwards = bootstrap.difference(before, before[::-1], each(100), 500, seed=0)
    assert not backwards.beyond_chance and backwards.p > 0.3
    with pytest.raises(ValueError, match="not 2 and 3"):
        bootstrap.difference([1, 2], [1, 2, 3], each(2), 10, seed=0)


def test_unknown_values_are_left_out_of_both_sides():
    found = bootstrap.difference([1, None, 3, 4], [2, 5, None, 6], each(4), 100, seed=0)
    assert found.value == 1.5 and found.units == 2
    with pytest.raises(ValueError, match="no values"):
        bootstrap.mean([None], ["a"], 50, seed=0)


def test_no_width_or_few_units_prove_nothing():
    assert bootstrap.mean([3, 3, 3], each(3), 50, seed=0)[:3] == (3, 3, 3)
    assert not bootstrap.mean([3.0] * 100, each(100), 50, seed=0).beyond_chance, "a width of zero is no evidence"
    values = np.random.default_rng(0).normal(5, 1, 20)
    assert bootstrap.mean(values, each(20), 200, 0).beyond_chance
    assert not bootstrap.mean(values[:19], each(19), 200, 0).beyond_chance


def test_where_all_agree_the_bounds_say_what_may_be_unseen():
    # 1 − 0.025^(1/80) = 4.5 %: so many of all dialogues may differ although none of 80 does
    unseen = 1 - 0.025 ** (1 / 80)
    assert unseen == pytest.approx(0.045, abs=5e-4)
    found = bootstrap.difference([100.0] * 80, [100.0] * 80, each(80), 100, 0, bounds=(-100, 100))
    assert found[:3] == pytest.approx((0, -100 * unseen, 100 * unseen)) and found.p == 1 and not found.beyond_chance
    risen = bootstrap.difference([0.0] * 80, [100.0] * 80, each(80), 100, 0, bounds=(-100, 100))
    assert risen[:3] == pytest.approx((100, 100 - 200 * unseen, 100)) and risen.beyond_chance and risen.p < 1e-20


def test_holm():
    # Holm's steps for four: 0.0125, 0.0167, 0.025, 0.05
    p = {"a": 0.01, "b": 0.04, "c": 0.016, "d": 0.03}
    assert holm(p) == {"a", "c"}, "d is below 0.05, but above 0.025; b comes after d"
    assert holm({"a": 0.03, "b": 0.04}) == set(), "the smallest must pass 0.025"
    assert holm({"a": 0.02, "b": 0.03, "c": 1.0}) == set()
    assert holm({}) == set()


# ----------------------------------------------------------------------------------------------------------------------
# Distinct-2


def expected_distinct(text, size):
    """The mean number of different bigrams over all draws of that many, by trying them all."""
    grams = [text[i : i + 2] for i in range(len(text) - 1)]
    draws = list(combinations(grams, size))
    return 100 / size * sum(len(set(draw)) for draw in draws) / len(draws)


def test_distinct_2_of_an_equally_large_draw():
    texts = {"long": ["abcabcab", "abab"], "short": ["abcd", "ad"]}
    found = Distinct2(texts, ["one", "two"])
    # "short" has ab bc cd | ad: without its first dialogue one bigram is left, so one is drawn, and one is distinct
    assert found.size == 1 and found.value("long").value == found.value("short").value == 100
    found = Distinct2({"long": ["abcabcab", ""], "short": ["abcd", ""]}, ["one", "one"])
    assert found.size == 0 and found.value("long").value == 0, "nothing is left without the only dialogue"
    long = "abcabcab"
    found = Distinct2({"long": [long, "x", "x"], "short": ["wxyz", "abc", "abc"]}, ["one", "two", "three"])
    assert found.size == 0  # "long" has nothing without dialogue one
    found = Distinct2({"long": [long, "xyzxyz"], "short": [long, "xyzxyz"]}, ["one", "two"])
    assert found.size == 5
    together = ["ab", "bc", "ca", "ab", "bc", "ca", "ab", "xy", "yz", "zx", "xy", "yz"]
    draws = list(combinations(together, 5))
    by_hand = 100 / 5 * sum(len(set(draw)) for draw in draws) / len(draws)
    assert found.value("long").value == pytest.approx(by_hand)
    assert found.difference("long", "short")[:3] == pytest.approx((0, 0, 0))
    assert found.value("long").low < by_hand < found.value("long").high


def test_distinct_2_does_not_fall_with_length_alone():
    """The same writer, once with answers of four times the length."""
    random = np.random.default_rng(0)
    letters = [chr(0x4E00 + i) for i in range(80)]

    def write(count):
        return ["".join(random.choice(letters, count)) for _ in range(60)]

    short, long = write(20), write(80)

    def plain(texts):
        grams = [text[i : i + 2] for text in texts for i in range(len(text) - 1)]
        return 100 * len(set(grams)) / len(grams)

    assert plain(short) - plain(long) > 20
    change = Distinct2({"short": short, "long": long}, each(60)).difference("short", "long")
    assert abs(change.value) < 3 and not change.beyond_chance and 0 < change.high - change.low < 10
    poorer = [text.translate({ord(c): "好" for c in letters[:40]}) for text in long]
    assert Distinct2({"long": long, "poorer": poorer}, each(60)).difference("long", "poorer").beyond_chance


# ----------------------------------------------------------------------------------------------------------------------
# Wins at equal length


def test_a_win_by_length_alone_is_none_at_equal_length():
    random = np.random.default_rng(1)
    longer = random.normal(10, 10, 400)
    by_length = (random.random(400) < 1 / (1 + np.exp(-longer / 4))).astype(float)
    found = length_control.win_rates(by_length.tolist(), longer.tolist(), each(400), 200, 0)
    assert found.plain.low > 0.7, "it wins, since it is longer"
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    by_merit = (random.random(400) < 0.8).astype(float)
    found = length_control.win_rates(by_merit.tolist(), longer.tolist(), each(400), 200, 0)
    assert found.length_controlled.low > 0.6 and found.length_controlled.value == pytest.approx(0.8, abs=0.1)


def test_logistic_regression_against_its_equations():
    """At the optimum the gradient is zero: Σ(won − p) = ridge · intercept, Σ(won − p)x = ridge · slope."""
    random = np.random.default_rng(2)
    feature = np.tanh(random.normal(0, 1, 50))
    won = (random.random(50) < 0.5 + 0.3 * feature).astype(float)
    rate = length_control.at_equal_length(won, feature, np.ones((1, 50)))[0]
    intercept = math.log(rate / (1 - rate))
    # solve the first equation for the slope by bisection, and check the second
    low, high = -20.0, 20.0

    def residual(slope):
        p = 1 / (1 + np.exp(-(intercept + slope * feature)))
        return ((won - p) * feature).sum() - length_control.RIDGE * slope

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if residual(middle) > 0 else (low, middle)
    p = 1 / (1 + np.exp(-(intercept + low * feature)))
    assert (won - p).sum() == pytest.approx(length_control.RIDGE * intercept, abs=1e-9)


@pytest.mark.parametrize(("wins", "rate"), [([1.0] * 40, 0.97), ([0.0] * 40, 0.03)])
def test_where_one_always_wins_the_rate_stays_finite(wins, rate):
    found = length_control.win_rates(wins, [5.0] * 40, each(40), 100, 0)
    assert abs(found.length_controlled.value - rate) < 0.04 and 0 <= found.plain.low <= found.plain.high <= 1


def test_an_interval_is_scaled_whole():
    assert Interval(1, 0.5, 2, 30, 0.04).scaled(100) == Interval(100, 50, 200, 30, 0.04)
