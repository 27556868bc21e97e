"""Numbers → the four answers that a reader opens the page for: in plain words, and honest when a hope was not met."""

from typing import Literal, NamedTuple

from stages.metrics.bootstrap import Interval
from stages.page.comparison import Comparison
from stages.page.formats import fixed, percent, span
from stages.page.health import Check
from stages.page.i18n import Sentence
from stages.page.inputs import Run
from stages.page.reference_results import METRICS
from stages.page.reward_model import RewardModel
from stages.page.smoothing import ends

Tone = Literal["good", "mixed", "bad"]

COST = 1.0
"""Points of 100 by which a mean must get worse, beyond chance, to count as a cost of PPO's longer answers."""
# What PPO may ruin: the metric, the sign of a change for the worse, and the sentence that says so (`cost.…`).
WATCHED = (("rouge-1", -1, "rouge"), ("rouge-l", -1, "rouge"), ("repetition", 1, "repetition"), ("eos_rate", -1, "eos"))


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
    costs = [
        Sentence(
            f"cost.{sentence}", {"metric": Sentence(f"metric.{name}"), "value": fixed(abs(changes[name].value), 1)}
        )
        for name, worse, sentence in WATCHED
        if changes[name].beyond_chance and changes[name].value * worse >= COST
    ]
    tone: Tone = "good" if longer and not costs else "mixed" if longer else "bad"
    short = f"short.ppo.{'longer' if longer else 'not'}.{'cost' if costs else 'fine'}"
    because = [
        Sentence(
            f"because.{what}.{_direction(changes[metric])}",
            {"metric": Sentence(f"metric.{metric}"), **_change(comparison, "sft", "ppo", metric, digits)},
        )
        for what, metric, digits in (
            ("length", "response_length", 1),
            ("quality", "rouge-1", 2),
            ("quality", "rouge-l", 2),
            ("repetition", "repetition", 1),
        )
    ]
    values = {model: f"{METRICS[model]['response_length']:g}" for model in ("sft", "ppo")}
    because.insert(1, Sentence("because.published.ppo", values))
    if changes["eos_rate"].beyond_chance:
        because.append(Sentence("because.eos", _change(comparison, "sft", "ppo", "eos_rate", 1)))
    because += [*training(run), Sentence("because.cost", {"points": fixed(COST, 0)})]
    return Answer("ppo", tone, Sentence(short, {"costs": costs}), because)


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
    values = {"passed": str(len(checks) - len(failed)), "total": str(len(checks)), "count": str(len(failed))}
    if not failed:
        return Answer("health", "good", Sentence("short.health.good"), [Sentence("because.health.good", values)])
    because = [Sentence("because.health.failed", values)]
    because += [
        Sentence(
            "because.health.one",
            {
                "name": Sentence(f"health.{check.name}"),
                "found": check.found,
                "expected": Sentence(f"health.{check.name}.expected"),
            },
        )
        for check in failed
    ]
    tone: Tone = "bad" if any(check.name == "finite" for check in failed) else "mixed"
    return Answer("health", tone, Sentence("short.health.mixed", values), because)


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
