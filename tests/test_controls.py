"""The controls: their maths by hand, their graph, and every command on models of some thousand parameters."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from imports import ROOT

from controls import best_of_n, findings, halves
from stages.metrics import bootstrap
from stages.text import records


def test_the_bound_of_best_of_n_by_hand() -> None:
    assert best_of_n.kl_bound(1) == 0
    assert best_of_n.kl_bound(2) == pytest.approx(0.6931 - 0.5, abs=1e-4)
    assert best_of_n.kl_bound(4) == pytest.approx(1.3863 - 0.75, abs=1e-4)
    assert best_of_n.kl_bound(16) == pytest.approx(2.7726 - 0.9375, abs=1e-4)


def test_the_best_of_n_is_expected_over_all_subsets() -> None:
    """Of 1, 3, 2 the pairs are (1, 3), (1, 2), (3, 2), whose highest are 3, 2, 3."""
    ranked, values = [1.0, 3.0, 2.0], [10.0, 20.0, 60.0]
    assert best_of_n.expected(ranked, ranked, 1) == pytest.approx(2)
    assert best_of_n.expected(ranked, ranked, 2) == pytest.approx(8 / 3)
    assert best_of_n.expected(ranked, ranked, 3) == pytest.approx(3)
    assert best_of_n.expected(ranked, values, 2) == pytest.approx((20 + 60 + 20) / 3)


def test_the_halves_share_no_question_and_lose_no_pair(tmp_path: Path) -> None:
    questions = ["a", "b", "a", "c", "d", "b", "e"]
    pairs = [records.Pair([], question, f"{at}", "") for at, question in enumerate(questions)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in pairs), encoding="utf-8")
    halves.main(file, tmp_path / "halves")
    proxy, gold = (records.read_pairs(tmp_path / "halves" / f"{name}.jsonl") for name in halves.NAMES)
    assert not {pair.instruction for pair in proxy} & {pair.instruction for pair in gold}
    assert sorted(pair.chosen for pair in proxy + gold) == [f"{at}" for at in range(7)]


def test_dpos_loss_by_hand() -> None:
    """β (log π/π_ref of the chosen − of the rejected) is 0.1 · (2 − (−1)) = 0.3 and 0.1 · (0 − 1) = −0.1."""
    import torch

    from controls import dpo

    policy, reference = torch.tensor([-3.0, -4.0, -6.0, -1.0]), torch.tensor([-5.0, -4.0, -5.0, -2.0])
    found = dpo.losses(policy, reference, 0.1)
    expected = [[1, math.log(1 + math.exp(-0.3)), 1, 0.3], [1, math.log(1 + math.exp(0.1)), 0, -0.1]]
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    unmoved = dpo.losses(reference, reference, 0.1)
    assert unmoved[:, 1].tolist() == pytest.approx([math.log(2)] * 2)


def test_the_share_of_a_gain_by_hand() -> None:
    """PPO gains 2 on average, length alone 1; where PPO gains nothing beyond chance there is no share."""
    dialogues = [at // 2 for at in range(60)]
    before = [float(at % 5) for at in range(60)]
    whole = [value + 1 + at // 2 % 3 for at, value in enumerate(before)]
    part = [value + (1 + at // 2 % 3) / 2 for at, value in enumerate(before)]
    share = findings.share_of_gain(before, whole, part, dialogues, 200, 0)
    assert share and share.value == pytest.approx(0.5) and share.units == 30
    noise = np.random.default_rng(0).normal(size=60)
    assert findings.share_of_gain(before, list(before + noise - noise.mean()), part, dialogues, 200, 0) is None


@pytest.mark.parametrize(
    ("gains", "short"),
    [
        ({}, "yes"),
        ({"dpo": 2.0}, "no"),
        ({"dpo": 1.0}, "unknown"),
    ],
)
def test_the_verdict_is_what_the_intervals_say(gains: dict[str, float], short: str) -> None:
    """PPO gains 1 sd on SFT; all others gain nothing, but for `gains`."""
    found = made_up(gains)
    compared = findings.compare(found, 200, 0)
    told = {answer.name: answer for answer in findings.answers(found, compared, 200, 0)}
    assert told["paid"].short.key == f"controls.paid.{short}"
    assert told["judge"].short.key == "controls.judge.yes"
    assert told["length"].short.key == "controls.length.yes"
    if short != "yes":
        assert told["paid"].short.values["models"] == [findings.label("dpo")]


def made_up(gains: dict[str, float]) -> Any:
    from controls.inputs import Found
    from controls.models import MODELS, SUBJECT

    draw = np.random.default_rng(1)
    difficulty = draw.normal(size=80)
    numbers = {}
    for model in MODELS:
        gain = gains.get(model.name, 1.0 if model.name in (SUBJECT, "ppo") else 0.0)
        own = difficulty + gain + draw.normal(scale=0.3, size=80)
        own += gain - (own - difficulty).mean()
        numbers[model.name] = {"gold": list(own), "reward": list(own), "rouge-l": list(20 + own), "kl": [1.0] * 80,
                               "response_length": list(30 + own)}  # fmt: skip
    accuracy = {name: {"accuracy": 0.7, "pairs": 100} for name in halves.NAMES}
    return Found([at // 2 for at in range(80)], numbers, {}, {}, accuracy)
