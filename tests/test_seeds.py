"""Intervals over questions and seeds, against numbers computed by hand and against simulated experiments."""

import math

import numpy as np
import pytest

from stages.metrics import bootstrap, seeds
from stages.metrics.bootstrap import Interval


def test_pooled_t_by_hand() -> None:
    """Pooled variance (0.5 + 0.5) / 2, its standard error √(0.5·(1/2 + 1/2)), two degrees of freedom."""
    assert seeds.seed_margin([1, 2], [3, 4]) == pytest.approx(4.303 * math.sqrt(0.5))
    assert seeds.seed_margin([1, 2], [5]) == pytest.approx(12.706 * math.sqrt(0.5 * 1.5))
    assert seeds.seed_margin([1], [5]) == 0


def test_half_widths_add_as_squares() -> None:
    by_question = Interval(10, 7, 14, units=50)
    found = seeds.widened(by_question, [1, 2], [11, 12])
    margin = 4.303 * math.sqrt(0.5)
    assert found.low == pytest.approx(10 - math.hypot(3, margin))
    assert found.high == pytest.approx(10 + math.hypot(4, margin))
    assert seeds.widened(by_question, [1], [11]) == by_question


def test_one_run_a_side_is_the_paired_bootstrap() -> None:
    before, after, dialogues = [1.0, 2.0, 3.0, 5.0] * 10, [2.0, 2.0, 5.0, 5.0] * 10, [*range(20)] * 2
    assert seeds.difference([before], [after], dialogues, 200, 0) == bootstrap.difference(
        before, after, dialogues, 200, 0
    )


def test_a_value_that_one_run_lacks_is_left_out() -> None:
    found = seeds.difference([[1, None, 3]], [[2, 5, 5], [2, 5, 5]], [0, 1, 2], 100, 0)
    assert found.value == pytest.approx(1.5) and found.units == 2


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Three seeds a side whose effects have the questions' size: at least 93 of 100 intervals hold the truth, 0."""
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        difficulty = random.normal(size=40)
        sides = [
            [(difficulty + random.normal(scale=0.5) + random.normal(size=40)).tolist() for _ in range(3)]
            for _ in range(2)
        ]
        found = seeds.difference(sides[0], sides[1], range(40), 200, trial)
        held += found.low <= 0 <= found.high
    assert held / 300 >= 0.93
