"""Preference records → pairs of a better and a worse answer."""

import random
from collections import Counter
from itertools import combinations
from typing import Any

from stages.runtime.errors import UserError
from stages.text.records import Pair, is_history


def to_pairs(record: Any, where: str) -> tuple[list[Pair], Counter[str]]:
    """All ordered pairs of one record and a count of what was seen and dropped.

    Args:
        record: `{instruction, input, output: [best, …, worst]}`, optionally with `history: [[question, answer], …]`.
            The question is instruction + input, as in the tutorial. Every better answer is paired with every worse
            one; equal answers say nothing and are dropped as ties.
        where: how an error message names the record.

    Raises:
        UserError: a key is missing or ill-typed.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: a preference record must be an object, not {type(record).__name__}")
    for key in ("instruction", "input"):
        if not isinstance(record.get(key), str):
            raise UserError(f"{where}: `{key}` must be a text")
    output, history = record.get("output"), record.get("history", [])
    if not isinstance(output, list) or len(output) < 2 or not all(isinstance(text, str) for text in output):
        raise UserError(f"{where}: `output` must be a list of at least two texts, best first")
    if not is_history(history):
        raise UserError(f"{where}: `history` must be a list of [question, answer]")

    pairs = [
        Pair(history, record["instruction"] + record["input"], chosen, rejected)
        for chosen, rejected in combinations(output, 2)
        if chosen != rejected
    ]
    possible = len(output) * (len(output) - 1) // 2
    return pairs, Counter(records=1, pairs=len(pairs), dropped_ties=possible - len(pairs))


def split(groups: list[list[Pair]], held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split records (each a group of pairs) into training and held-out pairs, order kept.

    All pairs of one question stay on one side: otherwise a held-out pair would share its answers with training. At
    least two questions are held out: one chooses the reward model's checkpoint, another one is reported.
    """
    by_question: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        if group:
            by_question.setdefault(group[0].instruction, []).append(index)
    questions = list(by_question)
    random.Random(seed).shuffle(questions)
    chosen_out = {i for q in questions[: max(2, round(held_out * len(questions)))] for i in by_question[q]}
    train = [pair for i, group in enumerate(groups) if i not in chosen_out for pair in group]
    validate = [pair for i, group in enumerate(groups) if i in chosen_out for pair in group]
    return train, validate
