"""Training curves → checks that a reader would make by eye, each with what was found and what is expected.

"Start" and "end" are the means of a curve's first and last quarter: fewer updates of PPO would be mostly chance.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from stages.page.formats import fixed, percent
from stages.page.i18n import Sentence
from stages.page.inputs import TRAINED, Run
from stages.page.reward_model import RewardModel
from stages.page.smoothing import ends

EVAL_RISE = 1.05  # a last evaluation loss this many times the best one: trained for too long
ENTROPY_KEPT = 0.4
EOS_LOST = 0.05
REPETITION_GAINED = 0.05
CLIPPED = 0.3
RATIO_OFF = 0.1
LENGTH_BOUND = 0.8


class Check(NamedTuple):
    """One look at a curve: `health.<name>` says what it is, `health.<name>.expected` what it should be."""

    name: str
    healthy: bool
    found: Sentence


def checks(run: Run, reward_model: RewardModel | None) -> list[Check]:
    """The checks that this run's curves allow, in the order of the stages."""
    found = [_finite(run), _falls(run, "sft"), _overfit(run, "sft")]
    if reward_model:
        found += [_falls(run, "rm"), _overfit(run, "rm"), _above_chance(reward_model), *_ppo(run)]
    return [check for check in found if check]


def _ppo(run: Run) -> list[Check | None]:
    ppo = run.curves["ppo"]
    return [
        _ends("reward", ppo["score"], 3, lambda start, end: end > start),
        _ends("kl", ppo["kl"], 3, lambda start, end: end > -0.05),
        _ends("entropy", ppo["entropy"], 3, lambda start, end: end >= ENTROPY_KEPT * start),
        _ends("eos", ppo["eos_rate"], 3, lambda start, end: end >= start - EOS_LOST),
        _ends("repetition", ppo["repetition"], 3, lambda start, end: end <= start + REPETITION_GAINED),
        _ends("length_bound", ppo["length_score_correlation"], 2, lambda start, end: abs(end) <= LENGTH_BOUND),
        _mean("clip", ppo["clip_fraction"], lambda mean: mean <= CLIPPED),
        _mean("ratio", ppo["ratio"], lambda mean: abs(mean - 1) <= RATIO_OFF),
        _ends("value", ppo["explained_variance"], 2, lambda start, end: end > 0),
    ]


def _finite(run: Run) -> Check:
    gaps = sum(run.curves[name]["loss"].count(None) for name in TRAINED if name in run.curves)
    return Check("finite", gaps == 0, Sentence("found.gaps", {"count": str(gaps)}))


def _falls(run: Run, stage: str) -> Check | None:
    return _ends(f"{stage}_falls", run.curves[stage]["loss"], 3, lambda start, end: end < start)


def _overfit(run: Run, stage: str) -> Check | None:
    curve = run.curves[f"{stage}_eval"]
    known = [(loss, step) for loss, step in zip(curve["eval_loss"], curve["step"], strict=True) if loss is not None]
    if not known:
        return None
    best, step = min(known)
    last = known[-1][0]
    values = {"best": fixed(best, 3), "step": fixed(step, 0), "last": fixed(last, 3)}
    return Check(f"{stage}_overfit", last <= EVAL_RISE * best, Sentence("found.best", values))


def _above_chance(reward_model: RewardModel) -> Check:
    everything = reward_model.groups["all"].accuracy
    values = {"value": percent(everything.value), "low": percent(everything.low), "high": percent(everything.high)}
    return Check("rm_accuracy", everything.proves and everything.low > 0.5, Sentence("found.interval", values))


def _ends(
    name: str, values: Sequence[float | None], digits: int, healthy: Callable[[float, float], bool]
) -> Check | None:
    found = ends(values)
    if found is None:
        return None
    words = {"start": fixed(found[0], digits), "end": fixed(found[1], digits)}
    return Check(name, healthy(*found), Sentence("found.ends", words))


def _mean(name: str, values: Sequence[float | None], healthy: Callable[[float], bool]) -> Check | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return Check(name, healthy(mean), Sentence("found.mean", {"mean": fixed(mean, 3)}))
