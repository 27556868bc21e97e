"""What the probes of `evaluate` say, with intervals: what the reward model rewards, and what PPO's gain is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.metrics import bootstrap, length_control, phrases
from stages.metrics.bootstrap import Interval
from stages.metrics.length_control import WinRates
from stages.metrics.phrases import Phrase
from stages.page.inputs import Run, known

EQUAL_LENGTH = 3
"""Characters by which two answers of equal length may differ."""


class Probes(NamedTuple):
    own_question: Interval
    """Held-out pairs that the reward model orders rightly, 0..1."""
    other_question: Interval
    """The same pairs under another pair's question, 0..1."""
    question_gain: Interval
    """The difference of the two, pair by pair: what reading the question brings."""
    swapped: Interval
    """Pairs whose own chosen answer scores above another question's chosen answer, 0..1: only the question tells."""
    rewards: dict[str, Interval]
    """Probe → the mean reward of its texts."""
    gains: dict[str, Interval]
    """Probe → mean reward of its texts − mean reward of the answers that they were made from."""
    gain: Interval
    """Reward of PPO's answers − reward of SFT's."""
    gain_at_equal_length: Interval | None
    """The same over questions whose two answers are equally long; None where there is none."""
    equal_length: int
    """How many questions that are."""
    gain_when_cut: Interval
    """PPO's answers cut to the length of SFT's."""
    wins: WinRates
    """PPO's answer has a higher reward than SFT's."""
    kl: Interval
    """Nats per test answer."""
    picked_up: list[Phrase]
    """Phrases that PPO uses far more than SFT and the doctors do."""


def measure(run: Run, draws: int, seed: int) -> Probes:
    pairs, dialogues = run.pairs, run.dialogues
    questions = pairs["question"]
    own = _right(pairs["chosen"], pairs["rejected"])
    other = _right(pairs["chosen_other_question"], pairs["rejected_other_question"])
    swapped = _right(pairs["chosen"], pairs["chosen_of_other"])

    def mean(values: Sequence[float | None]) -> Interval:
        return bootstrap.mean(values, dialogues, draws, seed)

    sft, ppo = (known(run.scores[model]["reward"]) for model in ("sft", "ppo"))
    made_from = {
        "doctor": sft, "ppo_other_question": ppo, "sft_unrelated_appended": sft, "sft_closing_appended": sft,
        "closing": sft,
    }  # fmt: skip
    made_from = {name: base for name, base in made_from.items() if name in run.probes}
    lengths = {m: np.array(known(run.scores[m]["response_length"])) for m in ("sft", "ppo")}
    longer = lengths["ppo"] - lengths["sft"]
    gain = np.subtract(ppo, sft)
    equal = [float(g) if abs(more) <= EQUAL_LENGTH else None for g, more in zip(gain, longer, strict=True)]
    texts = {model: [sample.predicts[model] for sample in run.samples] for model in ("sft", "ppo")}
    texts["doctor"] = [sample.label for sample in run.samples]
    return Probes(
        own_question=bootstrap.mean(own, questions, draws, seed, (0, 1)),
        other_question=bootstrap.mean(other, questions, draws, seed, (0, 1)),
        question_gain=bootstrap.difference(other, own, questions, draws, seed, (-1, 1)),
        swapped=bootstrap.mean(swapped, questions, draws, seed, (0, 1)),
        rewards={name: mean(run.probes[name]) for name in made_from},
        gains={name: bootstrap.difference(base, run.probes[name], dialogues, draws, seed)
               for name, base in made_from.items()},
        gain=mean(gain.tolist()),
        gain_at_equal_length=mean(equal) if any(value is not None for value in equal) else None,
        equal_length=sum(value is not None for value in equal),
        gain_when_cut=bootstrap.difference(sft, run.probes["ppo_cut"], dialogues, draws, seed),
        wins=length_control.win_rates(((np.sign(gain) + 1) / 2).tolist(), longer.tolist(), dialogues, draws, seed),
        kl=mean(run.probes["kl"]),
        picked_up=phrases.picked_up(texts, "ppo"),
    )  # fmt: skip


def _right(better: Sequence[float], worse: Sequence[float]) -> list[float]:
    return [float(a > b) for a, b in zip(better, worse, strict=True)]
