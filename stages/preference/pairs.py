"""Preference pairs as token ids, in the order of training: a question's pairs side by side, sharing their answers.

A question with K answers gives up to K(K - 1)/2 pairs. As in InstructGPT (Ouyang et al. 2022, section 3.5) they are
learnt together, so that each answer is computed once and not K - 1 times.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.preference.config import RmConfig
from stages.text import encoding, records
from stages.training.length_grouping import Row


class EncodedPair(NamedTuple):
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Question(NamedTuple):
    prompt: list[int]
    answers: list[list[int]]
    """Each once."""

    @property
    def tokens(self) -> int:
        """Of the prompt and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))


def encode(tokenizer: Any, pairs: Sequence[records.Pair], config: RmConfig) -> list[EncodedPair]:
    limit = config.max_target_length
    return [
        EncodedPair(
            encoding.encode_prompt(tokenizer, pair.history, pair.instruction, config.max_source_length, "rm").ids,
            encoding.encode_answer(tokenizer, pair.chosen, limit).ids,
            encoding.encode_answer(tokenizer, pair.rejected, limit).ids,
        )
        for pair in pairs
    ]


def rows_of(pairs: Sequence[EncodedPair]) -> list[Row]:
    """The pairs of each question share a row."""
    groups = _by_prompt(pairs)
    return [Row(group, questions([pairs[i] for i in group])[0][0].tokens) for group in groups]


def questions(pairs: Sequence[EncodedPair]) -> tuple[list[Question], list[tuple[int, int]]]:
    """The questions of some pairs, and where each pair's chosen and rejected answers are among all their answers."""
    found, count = [], 0
    places = [(0, 0)] * len(pairs)
    for group in _by_prompt(pairs):
        seen: dict[tuple[int, ...], int] = {}
        for i in group:
            for answer in (pairs[i].chosen, pairs[i].rejected):
                seen.setdefault(tuple(answer), count + len(seen))
            places[i] = seen[tuple(pairs[i].chosen)], seen[tuple(pairs[i].rejected)]
        found.append(Question(pairs[group[0]].prompt, [list(answer) for answer in seen]))
        count += len(seen)
    return found, places


def _by_prompt(pairs: Sequence[EncodedPair]) -> list[list[int]]:
    """Indices of the pairs of each prompt, in the order in which the prompts first appear."""
    found: dict[tuple[int, ...], list[int]] = {}
    for i, pair in enumerate(pairs):
        found.setdefault(tuple(pair.prompt), []).append(i)
    return list(found.values())
