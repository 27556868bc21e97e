"""Two texts → which characters of each are not in the other, and how much of them that is."""

from difflib import SequenceMatcher
from typing import NamedTuple


class Part(NamedTuple):
    text: str
    differs: bool


class Difference(NamedTuple):
    before: list[Part]
    after: list[Part]
    share: float
    """0 for equal texts, 1 for texts without a common run of characters: 1 − 2·M / T, with M characters matched of
    T in both (Ratcliff and Obershelp 1988)."""


def difference(before: str, after: str) -> Difference:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    old: list[Part] = []
    new: list[Part] = []
    for kind, from_old, to_old, from_new, to_new in matcher.get_opcodes():
        for parts, text in ((old, before[from_old:to_old]), (new, after[from_new:to_new])):
            if text:
                parts.append(Part(text, kind != "equal"))
    return Difference(old, new, 1 - matcher.ratio())
