"""The probes' numbers → sentences, each with its interval, that claim no more than the interval shows."""

from stages.metrics.bootstrap import Interval
from stages.page.formats import fixed, percent, span
from stages.page.i18n import Sentence
from stages.page.probes import EQUAL_LENGTH, Probes
from stages.page.verdict import question_sentence


def reward_model(found: Probes, closing: str) -> list[Sentence]:
    """What the reward model rewards."""
    sentences = [question_sentence(found), _share("finding.swapped", found.swapped)]
    for name in ("doctor", "ppo_other_question", "sft_unrelated_appended", "sft_closing_appended"):
        if name in found.gains:
            sentences.append(_change(f"finding.{name}", found.gains[name], closing=closing))
    return sentences


def ppo(found: Probes) -> list[Sentence]:
    """What PPO's gain is made of."""
    sentences = [_change("finding.gain", found.gain)]
    if found.gain_at_equal_length:
        about = {"questions": str(found.equal_length), "characters": str(EQUAL_LENGTH)}
        sentences.append(_change("finding.equal_length", found.gain_at_equal_length, **about))
    sentences.append(_change("finding.cut", found.gain_when_cut))
    sentences.append(_share("finding.wins", found.wins.plain))
    sentences.append(_share("finding.wins_controlled", found.wins.length_controlled))
    values = {"value": fixed(found.kl.value, 2), "span": span(found.kl, 2)}
    return [*sentences, Sentence("finding.kl", values)]


def _change(key: str, change: Interval, **more: str) -> Sentence:
    direction = "same" if not change.beyond_chance else "up" if change.value > 0 else "down"
    values = {"change": fixed(change.value, 2, sign=True), "span": span(change, 2, sign=True), **more}
    return Sentence(key, values | {"mark": Sentence(f"change.{direction}")})


def _share(key: str, share: Interval) -> Sentence:
    """A share against one half."""
    side = "same" if not share.proves or share.low <= 0.5 <= share.high else "up" if share.value > 0.5 else "down"
    values = {"value": percent(share.value), "low": percent(share.low), "high": percent(share.high)}
    return Sentence(key, values | {"mark": Sentence(f"half.{side}")})
