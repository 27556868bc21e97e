"""Numbers → the four answers that a reader opens the page for: in plain words, and honest when a hope was not met."""

from typing import Literal, NamedTuple

from stages.core.bootstrap import Interval
from stages.core.page.comparison import Comparison
from stages.core.page.formats import fixed, percent, span
from stages.core.page.health import Check
from stages.core.page.inputs import Run
from stages.core.page.published import METRICS
from stages.core.page.reward_model import RewardModel
from stages.core.page.smoothing import ends
from stages.core.page.words import Sentence

Tone = Literal["good", "mixed", "bad"]


class Answer(NamedTuple):
    """A question's key (`verdict.<name>`), the short answer, and the sentences that carry its numbers."""

    name: str
    tone: Tone
    short: Sentence
    because: list[Sentence]


def answers(run: Run, comparison: Comparison, reward_model: RewardModel, checks: list[Check]) -> list[Answer]:
    """Did SFT help; did PPO lengthen without ruining; does the reward model read; is training healthy."""
    return [_sft(comparison, len(run.samples)), _ppo(run, comparison), _reward_model(reward_model), _health(checks)]


def _sft(comparison: Comparison, count: int) -> Answer:
    change = comparison.differences["base", "sft"]["rouge-l"]
    tone: Tone = "mixed" if not change.beyond_chance else "good" if change.value > 0 else "bad"
    values = _change(comparison, "base", "sft", "rouge-l", 2) | {"count": str(count)}
    because = [Sentence(f"because.rouge.{_direction(change)}", {"model": "SFT"} | values)]
    values = {"before": fixed(METRICS["base"]["rouge-l"], 2), "after": fixed(METRICS["sft"]["rouge-l"], 2)}
    because.append(Sentence("because.published.sft", values))
    length = comparison.differences["base", "sft"]["response_length"]
    values = _change(comparison, "base", "sft", "response_length", 1)
    because.append(Sentence(f"because.length.{_direction(length)}", values))
    if comparison.differences["base", "sft"]["eos_rate"].beyond_chance:
        because.append(Sentence("because.eos", _change(comparison, "base", "sft", "eos_rate", 1)))
    return Answer("sft", tone, Sentence(f"short.sft.{_direction(change)}"), because)


def _ppo(run: Run, comparison: Comparison) -> Answer:
    changes = comparison.differences["sft", "ppo"]
    longer = changes["response_length"].beyond_chance and changes["response_length"].value > 0
    harms = [
        Sentence(f"harm.{name}")
        for name, worse in (("rouge-l", -1), ("repetition", 1), ("eos_rate", -1))
        if changes[name].beyond_chance and changes[name].value * worse > 0
    ]
    tone: Tone = "good" if longer and not harms else "mixed" if longer else "bad"
    short = f"short.ppo.{'longer' if longer else 'not'}.{'harm' if harms else 'fine'}"
    because = [
        Sentence(f"because.{what}.{_direction(changes[metric])}", _change(comparison, "sft", "ppo", metric, digits))
        for what, metric, digits in (
            ("length", "response_length", 1),
            ("quality", "rouge-l", 2),
            ("repetition", "repetition", 1),
        )
    ]
    values = {model: f"{METRICS[model]['response_length']:g}" for model in ("sft", "ppo")}
    because.insert(1, Sentence("because.published.ppo", values))
    because += training(run)
    return Answer("ppo", tone, Sentence(short, {"harms": harms}), because)


def training(run: Run) -> list[Sentence]:
    """Where PPO's reward, KL and length started and ended; a measure without values is left out."""
    found = {name: ends(run.curves["ppo"][name]) for name in ("score", "kl", "response_length")}
    if any(value is None for value in found.values()):
        return []
    values: dict[str, str] = {"updates": str(len(run.curves["ppo"]["step"]))}
    for name, digits in (("score", 3), ("kl", 3), ("response_length", 1)):
        start, end = found[name] or (0.0, 0.0)
        values |= {f"{name}_start": fixed(start, digits), f"{name}_end": fixed(end, digits)}
    return [Sentence("because.training", values)]


def _reward_model(found: RewardModel) -> Answer:
    chance = found.groups["all"].accuracy.low <= 0.5
    reads = found.reads.low > 0.5  # of no pairs it is NaN: never greater
    name = "chance" if chance else "reads" if reads else "counts"
    tone: Tone = "bad" if chance else "good" if reads else "mixed"
    because = [Sentence("because.accuracy", _accuracy(found, "all"))]
    because += [
        Sentence(f"because.{kind}", _accuracy(found, kind))
        for kind in ("similar", "shorter")
        if found.groups[kind].pairs
    ]
    because.append(Sentence("because.rule", {"value": percent(found.groups["rule"].accuracy.value)}))
    if found.length_correlation is not None:
        because.append(Sentence("because.correlation", {"value": fixed(found.length_correlation, 2)}))
    return Answer("rm", tone, Sentence(f"short.rm.{name}"), because)


def _health(checks: list[Check]) -> Answer:
    failed = [check for check in checks if not check.healthy]
    values = {"passed": str(len(checks) - len(failed)), "total": str(len(checks))}
    if not failed:
        return Answer("health", "good", Sentence("short.health.good"), [Sentence("because.health.good", values)])
    names = [Sentence("because.health.one", {"name": Sentence(f"health.{check.name}")}) for check in failed]
    because = [Sentence("because.health.failed", values | {"failed": names})]
    tone: Tone = "bad" if any(check.name == "finite" for check in failed) else "mixed"
    return Answer("health", tone, Sentence("short.health.mixed", {"count": str(len(failed))}), because)


def _direction(change: Interval) -> str:
    return "same" if not change.beyond_chance else "up" if change.value > 0 else "down"


def _change(comparison: Comparison, before: str, after: str, metric: str, digits: int) -> dict[str, str]:
    change = comparison.differences[before, after][metric]
    return {
        "before": fixed(comparison.values[before][metric].value, digits),
        "after": fixed(comparison.values[after][metric].value, digits),
        "change": fixed(change.value, digits, sign=True),
        "span": span(change, digits, sign=True),
    }


def _accuracy(found: RewardModel, name: str) -> dict[str, str]:
    group = found.groups[name]
    return {
        "value": percent(group.accuracy.value),
        "low": percent(group.accuracy.low),
        "high": percent(group.accuracy.high),
        "pairs": str(group.pairs),
    }
