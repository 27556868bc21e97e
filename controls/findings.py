"""Numbers of what is compared → did PPO pay? Paired intervals over dialogues; "can't tell" where they do not say."""

import statistics
from typing import NamedTuple

import numpy as np

from controls.inputs import Found
from controls.models import MODELS, SUBJECT
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import BY_NAME, Metric
from stages.metrics.multiple import holm
from stages.page.formats import fixed, span
from stages.page.i18n import Sentence
from stages.page.verdict import Answer, Tone

GOLD = Metric("gold", "Reward of the judge", "评审奖励", +1, 2)
PROXY = Metric("proxy", "Reward optimised", "被优化的奖励", +1, 2, key="reward")
MEASURES = (
    GOLD,
    *(BY_NAME[name] for name in ("facts_named", "facts_contradicted", "rouge-l")),
    PROXY,
    BY_NAME["response_length"],
)
"""What PPO is held against the others by; the facts only where the data bring them."""
JUDGED_BY = ("gold", "facts_named", "rouge-l")
"""The measures that say which model is better; the optimised reward and the length do not."""
SIMPLER = ("sft", "best_of_4", "best_of_16", "dpo", "length_only", "retrieval")
"""What a user could do instead of PPO."""
RESULTS = {"better": "yes", "worse": "no", "unknown": "unknown"}


class Comparison(NamedTuple):
    measures: list[Metric]
    values: dict[str, dict[str, Interval]]
    """Model → measure → its mean with the interval."""
    kl: dict[str, Interval]
    """Of each policy: nats per answer from the SFT model."""
    differences: dict[str, dict[str, Interval]]
    """Any other model → measure → PPO's mean less that model's, on the same questions."""
    significant: set[tuple[str, str]]
    """(model, measure): those that stay larger than chance among all of them (Holm). None of the judge's if it orders
    held-out pairs no better than chance: such a judge prefers things too, for no reason."""

    def mark(self, model: str, measure: Metric) -> str:
        """What PPO is against the model: `better`, `worse`, `more`, `less` or `unknown`."""
        change = self.differences[model][measure.name]
        if (model, measure.name) not in self.significant:
            return "unknown"
        better, worse = ("better", "worse") if measure.better else ("more", "less")
        return better if change.value * (measure.better or 1) > 0 else worse


def trusted(found: Found) -> bool:
    """Whether the judge orders held-out pairs better than a coin."""
    accuracy = found.accuracy["gold"].all
    return accuracy.proves and accuracy.low > 0.5


def compare(found: Found, draws: int, seed: int) -> Comparison:
    """Hold PPO (`ppo_half`) against every other model, paired by question."""
    measures = [m for m in MEASURES if all(m.key in columns for columns in found.numbers.values())]

    def value(model: str, measure: Metric) -> Interval:
        bounds = (0, 100 / measure.scale) if measure.bounded else None
        column = found.numbers[model][measure.key]
        return bootstrap.mean(column, found.dialogues, draws, seed, bounds).scaled(measure.scale)

    def difference(other: str, measure: Metric) -> Interval:
        bounds = (-100 / measure.scale, 100 / measure.scale) if measure.bounded else None
        before, after = found.numbers[other][measure.key], found.numbers[SUBJECT][measure.key]
        return bootstrap.difference(before, after, found.dialogues, draws, seed, bounds).scaled(measure.scale)

    others = [model.name for model in MODELS if model.name != SUBJECT]
    differences = {other: {m.name: difference(other, m) for m in measures} for other in others}
    p_values = {(other, name): each.p for other in others for name, each in differences[other].items()}
    return Comparison(
        measures=measures,
        values={model.name: {m.name: value(model.name, m) for m in measures} for model in MODELS},
        kl={
            model.name: bootstrap.mean(found.numbers[model.name]["kl"], found.dialogues, draws, seed)
            for model in MODELS
            if model.policy
        },
        differences=differences,
        significant={
            (other, name)
            for other, name in holm(p_values)
            if differences[other][name].beyond_chance and (name != "gold" or trusted(found))
        },
    )


def answers(found: Found, compared: Comparison, draws: int, seed: int) -> list[Answer]:
    """Did PPO pay; is it more than length; does a second reward model agree; does the value head pay."""
    return [
        _paid(compared), _length(found, compared, draws, seed), _judge(found, compared, draws, seed), _critic(compared)
    ]  # fmt: skip


def _paid(compared: Comparison) -> Answer:
    """By the judge: yes if PPO is better than everything simpler, no if something simpler is better."""
    sides = _sides(compared, GOLD, SIMPLER)
    result = "no" if sides["worse"] else "unknown" if sides["unknown"] else "yes"
    because = []
    for measure in compared.measures:
        if measure.name in JUDGED_BY:
            for side, models in _sides(compared, measure, SIMPLER).items():
                if models:
                    because.append(Sentence(f"controls.{side}", {"measure": named(measure), "models": models}))
    about = sides["worse"] or sides["unknown"]
    return Answer("paid", _tone(result), Sentence(f"controls.paid.{result}", {"models": about}), because)


def label(model: str) -> Sentence:
    return Sentence(f"controls.model.{model}")


def named(measure: Metric) -> Sentence:
    return Sentence(f"metric.{measure.name}")


def _sides(compared: Comparison, measure: Metric, others: tuple[str, ...]) -> dict[str, list[Sentence]]:
    sides: dict[str, list[Sentence]] = {"better": [], "worse": [], "unknown": []}
    for other in others:
        sides[compared.mark(other, measure)].append(label(other))
    return sides


def _length(found: Found, compared: Comparison, draws: int, seed: int) -> Answer:
    """PPO against a reward that counts characters: its share of PPO's gain by each reward model."""
    result = RESULTS[compared.mark("length_only", GOLD)]
    because = []
    for measure in (PROXY, GOLD):
        before, ppo, length = (found.numbers[name][measure.key] for name in ("sft", SUBJECT, "length_only"))
        share = share_of_gain(before, ppo, length, found.dialogues, draws, seed)
        if share:
            numbers = {"share": fixed(100 * share.value, 0), "span": span(share.scaled(100), 0)}
            because.append(Sentence("controls.share", {"measure": named(measure), **numbers}))
        else:
            because.append(Sentence("controls.no-gain", {"measure": named(measure)}))
    lengths = {
        name: fixed(compared.values[name]["response_length"].value, 1) for name in ("sft", SUBJECT, "length_only")
    }
    because.append(Sentence("controls.lengths", lengths))
    return Answer("length", _tone(result), Sentence(f"controls.length.{result}"), because)


def _judge(found: Found, compared: Comparison, draws: int, seed: int) -> Answer:
    """Whether PPO's gain is one by the reward model that it never saw, too."""
    proxy, gold = (compared.differences["sft"][name] for name in ("proxy", "gold"))
    result = RESULTS[compared.mark("sft", GOLD)]
    ppo, sft = found.numbers[SUBJECT], found.numbers["sft"]
    gains = {
        judge: [_number(after) - _number(before) for before, after in zip(sft[judge], ppo[judge], strict=True)]
        for judge in ("reward", "gold")
    }
    gap = bootstrap.difference(gains["gold"], gains["reward"], found.dialogues, draws, seed)
    values = {
        "proxy": fixed(proxy.value, 2, sign=True), "proxy_span": span(proxy, 2, sign=True),
        "gold": fixed(gold.value, 2, sign=True), "gold_span": span(gold, 2, sign=True),
        "gap": fixed(gap.value, 2, sign=True), "gap_span": span(gap, 2, sign=True),
    }  # fmt: skip
    because = [
        Sentence("controls.gains", values),
        Sentence(f"controls.gap.{_gap(gap)}", values),
    ]
    trust: dict[str, str] = {}
    for name, each in found.accuracy.items():
        trust |= {f"{name}_all": fixed(100 * each.all.value, 1), f"{name}_span": span(each.all.scaled(100), 1)}
        trust |= {f"{name}_short": fixed(100 * each.not_longer, 1), f"{name}_pairs": str(each.trained_on)}
    because.append(Sentence("controls.trust", trust))
    if not trusted(found):
        because.append(Sentence("controls.untrusted"))
    return Answer("judge", _tone(result), Sentence(f"controls.judge.{result}"), because)


def _gap(gap: Interval) -> str:
    """Of two gains, the optimised one less the judge's: what the reader is told."""
    if not gap.beyond_chance:
        return "unknown"
    return "shown" if gap.value > 0 else "judge"


def _critic(compared: Comparison) -> Answer:
    result = RESULTS[compared.mark("no_critic", GOLD)]
    because = []
    for measure in (GOLD, PROXY):
        change = compared.differences["no_critic"][measure.name]
        numbers = {"change": fixed(change.value, 2, sign=True), "span": span(change, 2, sign=True)}
        because.append(Sentence("controls.against-no-critic", {"measure": named(measure), **numbers}))
    return Answer("critic", _tone(result), Sentence(f"controls.critic.{result}"), because)


def _tone(result: str) -> Tone:
    return "good" if result == "yes" else "bad" if result == "no" else "mixed"


def _number(value: float | None) -> float:
    assert value is not None, "checked when it was read"
    return value


def share_of_gain(
    before: list[float | None], whole: list[float | None], part: list[float | None],
    dialogues: list[int], draws: int, seed: int,
) -> Interval | None:  # fmt: skip
    """(mean part − mean before) / (mean whole − mean before), with its interval over dialogues.

    None where the denominator may be chance: a share of nothing is no number.
    """
    gain = bootstrap.difference(before, whole, dialogues, draws, seed)
    if not gain.beyond_chance:
        return None
    places = np.array(bootstrap.numbered(dialogues))
    sums = [
        np.bincount(places, [_number(after) - _number(start) for start, after in zip(before, side, strict=True)])
        for side in (part, whole)
    ]
    drawn = np.concatenate([
        sums[0][block].sum(axis=1) / sums[1][block].sum(axis=1) for block in bootstrap.indices(gain.units, draws, seed)
    ])  # fmt: skip
    value = bootstrap.difference(before, part, dialogues, draws, seed).value / gain.value
    return bootstrap.interval(value, drawn, gain.units)


def frontier(found: Found) -> dict[int, dict[str, float]]:
    """n → the mean expected rewards of best-of-n."""
    return {
        n: {judge: statistics.fmean(each) for judge, each in columns.items()} for n, columns in found.best_of_n.items()
    }
