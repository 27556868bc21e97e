"""What a right answer names, and what it must not: the entries of `facts.json`."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from dialogues import Round
from world import DRUGS, KINDS, TESTS, Illness

VOCABULARY = {"drug": sorted(DRUGS), "test": sorted(TESTS)}

ASKED = {"drug": {"drug", "open", "refill"}, "test": {"test", "worse", "covid"}}
"""The intents of questions whose answer is a drug or a test; elsewhere the answer names it in passing (`also`)."""


def key(history: Sequence[Sequence[str]], question: str) -> str:
    """The key of a sample: a digest of its cleaned history and its question."""
    text = json.dumps([[list(round_) for round_ in history], question], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def named(text: str) -> set[str]:
    """The names of the vocabulary that stand in the text."""
    return {name for names in VOCABULARY.values() for name in names if name in text}


def wrong_doses(illness: Illness, kind: str) -> list[str]:
    """Amounts that are another person's for the same illness."""
    right = illness.treatments[kind]
    if not right:
        return []
    others = (illness.treatments.get(other) for other in KINDS if other != kind)
    amounts = {other.dose.amount for other in others if other} - {right.dose.amount}
    return [words + amount for amount in sorted(amounts) for words in ("一次", "每次")]


def entry(history: Sequence[Sequence[str]], round_: Round) -> dict[str, Any]:
    """The entry of one question; what its reference answer names is what must be named.

    Args:
        history: the cleaned earlier rounds.
        round_: the question with a right answer.
    """
    text, must, may, must_not = round_.answer, [], set(), []
    said = " ".join([words for pair in history for words in pair] + [round_.question])
    if round_.topic:
        must = [["advice", round_.topic.fact]]
        may = named(" ".join([*round_.topic.core, *round_.topic.more, *round_.topic.ask]))
    elif round_.case:
        illness, treatment = round_.case.illness, round_.case.treatment
        names = [("drug", treatment.drug.name)] if treatment and round_.intent not in ("alarm", "before") else []
        names += [("test", illness.test.name)]
        must = [[kind if round_.intent in ASKED[kind] else "also", name] for kind, name in names if name in text]
        if treatment and any(words in text for words in treatment.dose.amounts):
            must += [["dose", *treatment.dose.amounts], ["dose", *treatment.dose.times]]
        if illness.name in text:
            must.append(["illness", illness.name])
        if round_.intent == "alarm":
            must.append(["advice", illness.place])
        may = {name for _, name in names} | named(illness.text + (treatment.drug.side if treatment else ""))
        must_not = wrong_doses(illness, round_.case.person.kind)
    may |= named(said)
    return {
        "key": key(history, round_.question), "must": must, "may": sorted(may), "must_not": must_not,
    }  # fmt: skip
