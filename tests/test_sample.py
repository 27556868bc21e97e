"""The embedded sample corpus: no leaks, coherent dialogues, facts that hold, pairs that need the question."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from stages.importing import dialogues, facts, preferences
from stages.metrics import facts as metrics
from stages.metrics.answer import Answer
from stages.text.records import Pair, Sample

FOLDER = Path(__file__).parents[1] / "data/sample"
RULES = dialogues.DialogueRules()
SPLITS = ("train", "validate", "test")


@pytest.fixture(scope="module")
def sample_modules() -> Iterator[None]:
    """The generator's modules, importable as its own command sees them."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def samples(split: str) -> list[Sample]:
    return [
        sample for dialogue in read(f"{split}_data.json") for sample in dialogues.to_samples(dialogue, RULES, split)[0]
    ]


def answers(split: str) -> set[str]:
    """Every cleaned answer of a split, the histories' included."""
    return {s.output for s in samples(split)} | {answer for s in samples(split) for _, answer in s.history}


def groups() -> list[list[Pair]]:
    return [preferences.to_pairs(record, "preferences")[0] for record in read("preferences.json")]


def test_files_are_what_the_generator_writes(sample_modules: None) -> None:
    import generate

    for name, text in generate.corpus().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def test_sizes() -> None:
    counts = {split: len(samples(split)) for split in SPLITS}
    assert 1400 <= counts["train"] <= 2000 and 170 <= counts["validate"] <= 250 and 200 <= counts["test"] <= 260
    lengths = sorted(len(s.output) for s in samples("train"))
    assert 14 <= lengths[len(lengths) // 2] <= 20
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < 1_500_000


@pytest.mark.parametrize("split", ["validate", "test"])
def test_splits_do_not_leak(split: str) -> None:
    train, known = samples("train"), answers("train")
    long = [s.output for s in samples(split) if len(s.output) >= 8]
    assert sum(answer in known for answer in long) <= 0.05 * len(long)
    questions = {s.instruction for s in train}
    assert sum(s.instruction in questions for s in samples(split)) <= 0.02 * len(samples(split))
    assert not {s[1:] for s in train} & {s[1:] for s in samples(split)}


def test_no_test_question_among_the_preferences() -> None:
    asked = {s.instruction for s in samples("test")}
    for record in read("preferences.json"):
        assert record["instruction"] not in asked and not asked & {said for said, _ in record.get("history", [])}


def test_a_drug_is_named_before_it_is_asked_about(sample_modules: None) -> None:
    from world import DRUGS

    for split in SPLITS:
        for dialogue in read(f"{split}_data.json"):
            said = dialogue[0]
            for patient, doctor in zip(dialogue[0::2], dialogue[1::2], strict=False):
                for name in DRUGS:
                    at_home = any(words in patient for words in ("家里有", "还在用", "一起", "同时"))
                    assert name not in patient or name in said or at_home, (patient, dialogue)
                said += patient + doctor


def test_no_boilerplate_in_mid_sentence() -> None:
    for split in SPLITS:
        for dialogue in read(f"{split}_data.json"):
            for turn in dialogue:
                assert not any(bad in turn for bad in ("：，", "，，", "。。", "建议：建议", "{", "}", "。，", "，。"))


def test_every_case_of_the_test_split_is_in_training(sample_modules: None) -> None:
    from random import Random

    import generate

    seen = {}
    for number, (name, size) in enumerate(generate.SIZES.items()):
        cases = generate.cases(Random(generate.SEED + number), size)
        seen[name] = Counter((case.illness.name, case.person.kind) for case in cases if case)
    assert set(seen["test_data.json"]) <= set(seen["train_data.json"])
    assert min(seen["train_data.json"].values()) >= 3


def known(part: str, asked: list[Sample]) -> list[dict[str, Any]]:
    """What facts.json says of samples of one of its parts; it says something of each."""
    document = read("facts.json")
    found = facts.of_samples({"vocabulary": document["vocabulary"], "test": document[part]}, asked, "facts.json")
    return [entry for entry in found if entry] if all(found) else []


def ranked() -> list[Sample]:
    """The preference records, each with its best answer."""
    return [
        Sample([tuple(round_) for round_ in record.get("history", [])], record["instruction"], record["output"][0])
        for record in read("preferences.json")
    ]


@pytest.mark.parametrize(("part", "at_least"), [("test", 100), ("preferences", 900)])
def test_the_references_hold_their_own_facts(part: str, at_least: int) -> None:
    right = samples("test") if part == "test" else ranked()
    answered = [
        Answer(sample.output, sample.output, 1, True, entry)
        for sample, entry in zip(right, known(part, right), strict=True)
    ]
    assert {metrics.contradicted(answer) for answer in answered} == {0.0}
    shares = [share for share in map(metrics.named, answered) if share is not None]
    assert set(shares) == {1.0} and len(shares) >= at_least


def test_worse_answers_of_another_question_contradict_or_lack_the_facts() -> None:
    kinds = [entry["answers"] for entry in read("facts.json")["preferences"]]
    told = []
    for record, entry, labels in zip(read("preferences.json"), known("preferences", ranked()), kinds, strict=True):
        for text, kind in zip(record["output"], labels, strict=True):
            if kind == "other question":
                answer = Answer(text, record["output"][0], 1, True, entry)
                told.append(metrics.contradicted(answer) == 1 or metrics.named(answer) != 1)
    assert sum(told) >= 0.98 * len(told)


def test_pairs_are_balanced() -> None:
    entries = read("facts.json")["preferences"]
    pairs = [pair for group in groups() for pair in group]
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs)
    assert 0.55 <= longer <= 0.65
    _, held_out = preferences.split(groups(), 0.15, 42)
    assert sum(abs(len(pair.chosen) - len(pair.rejected)) <= 3 for pair in held_out) >= 80
    kinds = Counter(kind for entry in entries for _, kind in combinations(entry["answers"], 2))
    assert kinds["other question"] >= 0.4 * len(pairs)
    worse = {
        text
        for record, entry in zip(read("preferences.json"), entries, strict=True)
        for text, kind in zip(record["output"], entry["answers"], strict=True)
        if kind == "other question"
    }
    assert sum(pair.rejected in worse for pair in held_out) >= 60
