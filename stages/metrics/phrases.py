"""Answers of several writers → the phrases that one of them uses far more often than the others, and usual endings."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LENGTHS = range(4, 13)
"""Characters of a phrase."""
SENTENCE = re.compile(r"[^。！？!?\n]+[。！？!?\n]?")
CLAUSE = re.compile(r"[^，。！？；：、,.!?;:\s]+")


class Phrase(NamedTuple):
    text: str
    answers: dict[str, int]
    """Writer → how many of its answers hold the phrase."""
    z: float
    """Of the difference of two shares (pooled), against that other writer who uses it the most."""


def picked_up(texts: Mapping[str, Sequence[str]], writer: str, limit: int = 8, least: int = 5) -> list[Phrase]:
    """The most over-represented phrases of `writer`, against every other writer of `texts`, strongest first.

    A phrase lies within one clause, is in at least `least` of the writer's answers, and is not part of, nor holds, a
    stronger one. Of phrases that always come together the longest is named.
    """
    counts = {name: _answers_with_phrase(each) for name, each in texts.items()}
    found = []
    for phrase, mine in counts[writer].items():
        if mine < least:
            continue
        others = [
            _z(mine, len(texts[writer]), counts[name][phrase], len(texts[name])) for name in texts if name != writer
        ]
        if min(others) > 3:  # of some ten thousand candidates: well beyond a lone chance find
            found.append(Phrase(phrase, {name: counts[name][phrase] for name in texts}, min(others)))
    found.sort(key=lambda phrase: (-phrase.z, -len(phrase.text), phrase.text))
    chosen: list[Phrase] = []
    for candidate in found:
        if len(chosen) == limit:
            break
        if not any(_overlap(candidate.text, other.text) for other in chosen):
            chosen.append(candidate)
    return chosen


def endings(texts: Sequence[str], limit: int) -> list[str]:
    """The most frequent last sentences of texts that have more than one sentence; the most frequent first."""
    last = Counter(sentences[-1].strip() for text in texts if len(sentences := SENTENCE.findall(text.strip())) > 1)
    return [text for text, _ in sorted(last.items(), key=lambda item: (-item[1], item[0]))[:limit]]


def _answers_with_phrase(texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        clauses = CLAUSE.findall(text)
        counts.update({c[i : i + n] for c in clauses for n in LENGTHS for i in range(len(c) - n + 1)})
    return counts


def _z(mine: int, of_mine: int, theirs: int, of_theirs: int) -> float:
    pooled = (mine + theirs) / (of_mine + of_theirs)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of_mine + 1 / of_theirs))
    return (mine / of_mine - theirs / of_theirs) / error if error else 0.0


def _overlap(one: str, other: str) -> bool:
    """Whether they share four characters in a row: then they are ends of one phrase."""
    return any(one[i : i + LENGTHS.start] in other for i in range(len(one) - LENGTHS.start + 1))
