"""What an answer names of what it should, and what it names that contradicts: pure functions over texts.

`facts.json` holds `vocabulary`, the names of all drugs and tests of the sample world, and one entry for each test sample
and preference record:

    key       of the history and the question, see `key`
    must      what the answer must name: a list of [kind, wording, ...], where any one of the wordings will do; the kind
              is drug or test (what was asked for), dose, illness, advice, or also (a drug or test named in passing)
    may       names of the vocabulary that fit here; any other name of the vocabulary contradicts
    must_not  further texts that contradict, such as another person's dose
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def key(history: Sequence[Sequence[str]], question: str) -> str:
    """The key of a sample: a digest of its cleaned history and its question."""
    text = json.dumps([[list(round_) for round_ in history], question], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def forbidden(entry: Mapping[str, Any], vocabulary: Mapping[str, Sequence[str]]) -> list[str]:
    """Every text that contradicts the entry."""
    may = set(entry["may"])
    return [name for names in vocabulary.values() for name in names if name not in may] + list(entry["must_not"])


def score(
    text: str, entry: Mapping[str, Any], forbidden_texts: Iterable[str] = (), kinds: Sequence[str] = ("drug", "test")
) -> tuple[int, int, int]:
    """How many of the facts the answer names, how many there are, how many texts contradict.

    Args:
        text: the answer.
        entry: one entry of `facts.json`.
        forbidden_texts: what contradicts; see `forbidden`.
        kinds: the kinds of facts that count.
    """
    must = [names for kind, *names in entry["must"] if kind in kinds]
    named = sum(any(name in text for name in names) for names in must)
    return named, len(must), sum(name in text for name in forbidden_texts)
