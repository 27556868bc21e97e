"""Writes the embedded sample corpus: `python data/sample/generate.py` rewrites the five JSON files beside it.

`--fresh 300 --to data/fresh` writes test_data.json and facts.json of 300 more dialogues instead, for a second opinion on
a finished run: no file of the sample holds them, and no setting was chosen by them.

The splits share no answer of eight or more characters and no question that has an answer: a dialogue that would repeat
one of another split is drawn again. Every case (illness and kind of person) comes up in training several times.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from dialogues import Round, rounds, with_quirks
from doctor import Case
from facts import VOCABULARY, entry
from preferences import record
from world import CASES, person

SEED = 20200315
SIZES = {"test_data.json": 90, "validate_data.json": 75, "train_data.json": 600}
PREFERENCES = 1500
MIN_CHARACTERS = 5  # the pipeline makes no sample of a shorter answer
LONG = 8  # answers of this length must not recur in another split

Dialogue = tuple[list[str], list[Round]]


def samples(talk: list[Round]) -> list[tuple[list[list[str]], Round]]:
    """The (history, round) that the pipeline's rule makes samples of."""
    pairs = [[round_.question, round_.answer] for round_ in talk]
    return [(pairs[:i], round_) for i, round_ in enumerate(talk) if len(round_.answer) >= MIN_CHARACTERS]


def traces(talk: list[Round]) -> tuple[set[str], set[str]]:
    """The long answers and the answered questions of a dialogue."""
    answers = {round_.answer for round_ in talk if len(round_.answer) >= LONG}
    return answers, {round_.question for _, round_ in samples(talk)}


def cases(rng: Random, count: int) -> Iterable[Case | None]:
    """What the dialogues of a split are about: every case in turn, and everyday questions (None)."""
    deck: list[Case | None] = []
    for _ in range(count):
        if not deck:
            deck = [Case(illness, person(rng, kind)) for illness, kind in CASES]
            deck += [None] * (len(deck) // 6)
            rng.shuffle(deck)
        yield deck.pop()


def split(rng: Random, count: int, answers: set[str], questions: set[str]) -> list[Dialogue]:
    """Dialogues that repeat none of the answers and questions of other splits."""
    out: list[Dialogue] = []
    openings: set[str] = set()
    for case in cases(rng, count):
        while True:
            turns, talk = with_quirks(rng, rounds(rng, case))
            mine = traces(talk)
            if not mine[0] & answers and not mine[1] & questions and turns[0] not in openings:
                break
        openings.add(turns[0])
        out.append((turns, talk))
    return out


def preferences(rng: Random, questions: set[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Preference records with distinct questions, none of them a test question."""
    more = Random(SEED)
    out: list[tuple[dict[str, Any], dict[str, Any]]] = []
    seen: set[str] = set()
    while len(out) < PREFERENCES:
        row, fact = record(rng, more)
        asked = [row["instruction"], *(said for said, _ in row.get("history", []))]
        if fact["key"] not in seen and not questions & set(asked):
            seen.add(fact["key"])
            out.append((row, fact))
    return out


def lines(rows: Iterable[Any], separators: tuple[str, str] = (", ", ": ")) -> str:
    """A JSON list with one row on each line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=separators) for row in rows) + "\n]"


def splits() -> dict[str, list[Dialogue]]:
    """The dialogues of each file."""
    out: dict[str, list[Dialogue]] = {}
    for number, (name, size) in enumerate(SIZES.items()):
        out[name] = split(Random(SEED + number), size, *known(out))
    return out


def known(written: dict[str, list[Dialogue]]) -> tuple[set[str], set[str]]:
    """The long answers and the answered questions of all these files."""
    found = [traces(talk) for dialogues in written.values() for _, talk in dialogues]
    return {a for answers, _ in found for a in answers}, {q for _, questions in found for q in questions}


def facts_of(dialogues: list[Dialogue]) -> list[dict[str, Any]]:
    """What is known of each sample."""
    return [entry(history, round_) for _, talk in dialogues for history, round_ in samples(talk)]


def facts_file(facts: dict[str, list[dict[str, Any]]]) -> str:
    """The text of facts.json."""
    vocabulary = ",\n".join(
        f"{json.dumps(kind)}: {json.dumps(names, ensure_ascii=False)}" for kind, names in VOCABULARY.items()
    )
    parts = [
        f'"vocabulary": {{\n{vocabulary}\n}}',
        *(f'"{part}": {lines(rows, (",", ":"))}' for part, rows in facts.items()),
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def corpus() -> dict[str, str]:
    """The text of each file, by name."""
    written = splits()
    test = {"test_data.json": written["test_data.json"]}
    records = preferences(Random(SEED + len(SIZES)), known(test)[1])
    facts = {"test": facts_of(written["test_data.json"]), "preferences": [fact for _, fact in records]}
    files = {name: lines(turns for turns, _ in dialogues) + "\n" for name, dialogues in written.items()}
    return files | {
        "preferences.json": lines(row for row, _ in records) + "\n",
        "facts.json": facts_file(facts),
    }


def fresh(count: int, seed: int) -> dict[str, str]:
    """The text of a test split that repeats nothing of `corpus`, and of its facts."""
    written = splits()
    answers, questions = known(written)
    test = {"test_data.json": written["test_data.json"]}
    questions |= {row["instruction"] for row, _ in preferences(Random(SEED + len(SIZES)), known(test)[1])}
    dialogues = split(Random(seed), count, answers, questions)
    return {
        "test_data.json": lines(turns for turns, _ in dialogues) + "\n",
        "facts.json": facts_file({"test": facts_of(dialogues)}),
    }


def main() -> None:
    """Write the files."""
    options = argparse.ArgumentParser(description="Write the sample corpus, or more test dialogues.")
    options.add_argument("--fresh", type=int, metavar="N", help="write N more test dialogues instead, into --to")
    options.add_argument("--seed", type=int, default=777, help="of the fresh ones")
    options.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder of the files")
    chosen = options.parse_args()
    if chosen.fresh and chosen.to == options.get_default("to"):
        options.error("--fresh needs --to, a folder other than the sample's")
    chosen.to.mkdir(parents=True, exist_ok=True)
    for name, text in (fresh(chosen.fresh, chosen.seed) if chosen.fresh else corpus()).items():
        (chosen.to / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
