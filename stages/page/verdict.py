"""Numbers → the four answers that a reader opens the page for, in plain words; "can't tell" is one of them.

A claim needs an interval that excludes its opposite. That something does no harm is claimed only when the bad end of
the interval is harmless: better than the metric's margin (non-inferiority).
"""

from typing import Any, Literal, NamedTuple

from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import BASELINE, Metric
from stages.page import reference_results
from stages.page.comparison import Comparison
from stages.page.formats import fixed, percent, span
from stages.page.health import Check
from stages.page.i18n import Sentence
from stages.page.inputs import Run
from stages.page.probes import Probes
from stages.page.reward_model import RewardModel
from stages.page.smoothing import ends

Tone = Literal["good", "mixed", "bad"]
Harm = Literal["none", "shown", "possible"]


class Answer(NamedTuple):
    """A question's key (`verdict.<name>`), the short answer, and the sentences that carry its numbers."""

    name: str
    tone: Tone
    short: Sentence
    because: list[Sentence]


def answers(
    run: Run, comparison: Comparison, reward_model: RewardModel | None, probes: Probes | None, checks: list[Check]
) -> list[Answer]:
    """Did SFT help; did PPO lengthen without ruining; does the reward model read; is training healthy."""
    found = [_sft(run, comparison)]
    if reward_model and probes:
        found += [_ppo(run, comparison), _reward_model(reward_model, probes)]
    return [*found, _health(checks)]


def harm(change: Interval, metric: Metric) -> Harm:
    """Whether a change is harmless (its bad end within the margin), shown to be for the worse, or neither is shown."""
    margin = metric.margin or 0.0
    # the change counted so that less is worse
    bad_end, good_end = (change.low, change.high) if metric.better > 0 else (-change.high, -change.low)
    if change.proves and bad_end > -margin:
        return "none"
    return "shown" if change.proves and good_end < 0 else "possible"


def _sft(run: Run, comparison: Comparison) -> Answer:
    change = comparison.differences["base", "sft"]["rouge-l"]
    direction = _direction(change)
    tone: Tone = {"same": "mixed", "up": "good", "down": "bad"}[direction]  # type: ignore[assignment]
    values = _change(comparison, "base", "sft", "rouge-l", 2)
    values |= {"count": str(len(run.samples)), "dialogues": str(change.units)}
    because = [Sentence(f"because.rouge.{direction}", {"model": "SFT"} | values)]
    if reference_results.comparable(run.documents["data"]):
        published = reference_results.METRICS
        ends_of = {"before": published["base"]["rouge-l"], "after": published["sft"]["rouge-l"]}
        because.append(Sentence("because.published.sft", {name: fixed(value, 2) for name, value in ends_of.items()}))
    nearest = comparison.values[BASELINE]["rouge-l"]
    because.append(Sentence("because.retrieval", {"value": fixed(nearest.value, 2), "span": span(nearest, 2)}))
    length = comparison.differences["base", "sft"]["response_length"]
    values = _change(comparison, "base", "sft", "response_length", 1)
    because.append(Sentence(f"because.length.{_direction(length)}", values))
    if comparison.differences["base", "sft"]["eos_rate"].beyond_chance:
        because.append(Sentence("because.eos", _change(comparison, "base", "sft", "eos_rate", 1)))
    return Answer("sft", tone, Sentence(f"short.sft.{direction}"), because)


def _ppo(run: Run, comparison: Comparison) -> Answer:
    changes = comparison.differences["sft", "ppo"]
    watched = [metric for metric in comparison.metrics if metric.margin is not None]
    harms = {metric.name: harm(changes[metric.name], metric) for metric in watched}
    shown = [_cost("cost", changes[m.name], m) for m in watched if harms[m.name] == "shown"]
    possible = [_cost("possible", changes[m.name], m) for m in watched if harms[m.name] == "possible"]
    longer = {"up": "longer", "down": "shorter", "same": "unknown"}[_direction(changes["response_length"])]
    cost = "cost" if shown else "unknown" if possible else "fine"
    tone: Tone = "bad" if longer == "shorter" else "good" if (longer, cost) == ("longer", "fine") else "mixed"
    short = Sentence(
        "short.ppo",
        {
            "length": Sentence(f"short.ppo.length.{longer}"),
            "cost": Sentence(f"short.ppo.cost.{cost}", {"costs": shown or possible}),
        },
    )
    because = [_because_length(comparison)]
    if reference_results.comparable(run.documents["data"]):
        lengths = {model: f"{reference_results.METRICS[model]['response_length']:g}" for model in ("sft", "ppo")}
        because.append(Sentence("because.published.ppo", lengths))
    for metric in watched:
        values: dict[str, Any] = {
            "metric": Sentence(f"metric.{metric.name}"),
            **_change(comparison, "sft", "ppo", metric.name, metric.digits),
        }
        because.append(Sentence(f"because.harm.{harms[metric.name]}", values))
    margins = [Sentence("margin", {"metric": Sentence(f"metric.{m.name}"), "value": f"{m.margin:g}"}) for m in watched]
    return Answer("ppo", tone, short, [*because, *training(run), Sentence("because.margins", {"margins": margins})])


def _because_length(comparison: Comparison) -> Sentence:
    direction = _direction(comparison.differences["sft", "ppo"]["response_length"])
    return Sentence(f"because.length.{direction}", _change(comparison, "sft", "ppo", "response_length", 1))


def _cost(key: str, change: Interval, metric: Metric) -> Sentence:
    """By how much the metric got worse (`cost`), or by how much it may have (`possible`)."""
    if not change.proves:
        key = "too-little"
    amount = abs(change.value) if key == "cost" else max(0.0, -change.low if metric.better > 0 else change.high)
    values: dict[str, Any] = {"metric": Sentence(f"metric.{metric.name}"), "value": fixed(amount, 1)}
    return Sentence(f"{key}.{'fell' if metric.better > 0 else 'rose'}", values)


def training(run: Run) -> list[Sentence]:
    """PPO's reward, KL and length in the first and the last quarter of its updates; nothing if one has no values."""
    values: dict[str, str] = {"updates": str(len(run.curves["ppo"]["step"]))}
    for name, digits in (("score", 3), ("kl", 3), ("response_length", 1)):
        found = ends(run.curves["ppo"][name])
        if found is None:
            return []
        values |= {f"{name}_start": fixed(found[0], digits), f"{name}_end": fixed(found[1], digits)}
    return [Sentence("because.training", values)]


def _reward_model(found: RewardModel, probes: Probes) -> Answer:
    overall = found.groups["all"].accuracy
    better_than_chance = overall.proves and overall.low > 0.5
    more_than_length = found.reads.proves and found.reads.low > 0.5
    only_length = found.reads.proves and found.reads.high < 0.5
    reads_question = probes.question_gain.beyond_chance and probes.question_gain.value > 0
    if not better_than_chance:
        name, tone = "chance", "bad" if overall.proves else "mixed"
    elif only_length:
        name, tone = "counts", "bad"
    elif more_than_length and reads_question:
        name, tone = "reads", "good"
    elif more_than_length:
        name, tone = "no_question", "mixed"
    else:
        name, tone = "unknown", "mixed"
    because = [Sentence("because.accuracy", _accuracy(found, "all"))]
    because += [
        Sentence(f"because.{kind}", _accuracy(found, kind))
        for kind in ("similar", "shorter")
        if found.groups[kind].pairs
    ]
    because.append(Sentence("because.rule", {"value": percent(found.groups["rule"].accuracy.value)}))
    because.append(question_sentence(probes))
    if found.length_correlation is not None:
        because.append(Sentence("because.correlation", {"value": fixed(found.length_correlation, 2)}))
    return Answer("rm", tone, Sentence(f"short.rm.{name}"), because)  # type: ignore[arg-type]


def question_sentence(probes: Probes) -> Sentence:
    gain = probes.question_gain
    values = {
        "own": percent(probes.own_question.value),
        "other": percent(probes.other_question.value),
        "change": fixed(100 * gain.value, 1, sign=True),
        "span": span(gain.scaled(100), 1, sign=True),
    }
    return Sentence(f"because.question.{_direction(gain)}", values)


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
