"""Wins between two models → how often one would win if both wrote answers of the same length.

The length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475): a logistic regression of winning on
tanh(Δlength / its deviation); the rate at Δlength = 0 is σ(intercept). Their terms for the question's difficulty are
left out: there is one pair of models and one judge here.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval

RIDGE = 0.01
"""Weight of the squared coefficients: keeps them finite where length, or everybody's winning, decides all pairs."""
NEWTON_STEPS = 25


class WinRates(NamedTuple):
    """Shares of wins, 0..1; a tie counts half."""

    plain: Interval
    length_controlled: Interval


def win_rates(
    wins: Sequence[float], longer: Sequence[float], clusters: Sequence[Hashable], draws: int, seed: int
) -> WinRates:
    """Both rates, with intervals over dialogues.

    Args:
        wins: (n,) 1 where the second model wins, 0 where the first does, 0.5 for a tie.
        longer: (n,) by how many characters the second model's answer is the longer one.
        clusters: (n,) the dialogue of each sample.
    """
    places = np.array(bootstrap.numbered(clusters))
    won, length = np.asarray(wins, dtype=np.float64), np.asarray(longer, dtype=np.float64)
    deviation = length.std()
    feature = np.tanh(length / deviation) if deviation > 0 else np.zeros_like(length)
    units = int(places.max()) + 1
    drawn = []
    for block in bootstrap.indices(units, draws, seed):
        times = np.stack([np.bincount(row, minlength=units) for row in block])[:, places]
        drawn.append(at_equal_length(won, feature, times.astype(np.float64)))
    value = float(at_equal_length(won, feature, np.ones((1, len(won))))[0])
    return WinRates(
        bootstrap.mean(list(wins), clusters, draws, seed, bounds=(0, 1)),
        bootstrap.interval(value, np.concatenate(drawn), units),
    )


def at_equal_length(won: NDArray[Any], feature: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """σ(intercept) of a ridge logistic regression of `won` (n,) on `feature` (n,), for each row of `weights` (b, n).

    Newton's method, for all rows at once.
    """
    intercept, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        predicted = 1 / (1 + np.exp(-(intercept[:, None] + slope[:, None] * feature)))
        error = weights * (won - predicted)
        curvature = weights * predicted * (1 - predicted)
        g0, g1 = error.sum(axis=1) - RIDGE * intercept, error @ feature - RIDGE * slope
        h00, h01, h11 = curvature.sum(axis=1) + RIDGE, curvature @ feature, curvature @ feature**2 + RIDGE
        determinant = h00 * h11 - h01 * h01
        intercept = np.clip(intercept + (h11 * g0 - h01 * g1) / determinant, -15, 15)
        slope = np.clip(slope + (h00 * g1 - h01 * g0) / determinant, -15, 15)
    return 1 / (1 + np.exp(-intercept))
