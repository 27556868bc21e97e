"""Dialogues and preference records → samples and pairs.

python -m stages.preprocess --help
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stages.importing import contamination, dialogues, facts, preferences, recognize
from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import json_files
from stages.text.records import Pair, Sample


class DataConfig(dialogues.DialogueRules):
    dialogues: Annotated[str, Field(min_length=1)] = "data/sample"
    """Folder with train_data.json, validate_data.json and test_data.json."""
    preferences: Annotated[str, Field(min_length=1)] = "data/sample/preferences.json"
    """JSON file of preference records; an empty list for a run without reward model and PPO (`make sft-only`)."""
    preferences_validate_ratio: params.Ratio = 0.15
    """Share of the preference questions held out to measure the reward model."""
    seed: params.Seed = 42
    """Decides which preferences and which dialogues of SFT are held out; runs that differ in `seed` share both."""


@command
def main(
    to: Annotated[Path, typer.Option(help="folder for the JSON lines")],
    log: Annotated[Path, typer.Option(help="folder of metrics.json: what came in, was dropped and went out")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Turn dialogues into samples and preference records into pairs."""
    data = params.load(params_file, "data", DataConfig)

    folder, preference = Path(data.dialogues), Path(data.preferences)
    # Everything is read before anything is written: a mistake in the last file leaves no half of the data.
    splits, report = read_splits(folder, data)
    train, held_out, report["preferences"] = read_pairs(preference, data.preferences_validate_ratio, data.seed)
    files = {split: folder / f"{split}_data.json" for split in splits} | {"preferences": preference}
    report["sha256"] = {name: sha256(file) for name, file in files.items()}

    report["contamination"] = contamination.overlap(splits["test"], splits["train"])
    known = read_facts(folder / "facts.json", splits["test"])

    parts: dict[str, list[Any]] = {**splits, "preferences_train": train, "preferences_validate": held_out}
    for name, rows in parts.items():
        atomic.write_jsonl(to / f"{name}.jsonl", (row._asdict() for row in rows))
    if known:
        atomic.write_jsonl(to / "facts.jsonl", known)
        report["facts"] = {"test": sum(each is not None for each in known)}
    atomic.write_json(log / "metrics.json", report)
    for name in files:
        print(f"{name}: {describe(report[name])}")
    shares = (f"{report['contamination'][part]:.1%} of the {part}" for part in ("questions", "answers", "pairs"))
    print("of the test split, found in training word for word:", ", ".join(shares))


def read_splits(folder: Path, rules: dialogues.DialogueRules) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """The samples of each split, and what came in, was dropped and went out."""
    if folder.is_file():
        advice = recognize.advice(folder, json_files.read_records(folder), "covid")
        raise UserError(f"data.dialogues: {folder} {advice or 'is a file; name a folder with train_data.json'}")
    splits: dict[str, list[Sample]] = {}
    report: dict[str, Any] = {}
    for split in ("train", "validate", "test"):
        source = folder / f"{split}_data.json"
        splits[split] = []
        counts: Counter[str] = Counter()
        for index, dialogue in enumerate(read(source, own="covid")):
            samples, seen = dialogues.to_samples(dialogue, rules, f"{source}, dialogue {index}")
            splits[split] += [sample._replace(dialogue=index) for sample in samples]
            counts += seen
        if not splits[split]:
            raise UserError(f"{source}: no dialogue of it gives a sample ({describe(counts)})")
        report[split] = {key: counts[key] for key in SAMPLE_COUNTS}
    return splits, report


def read_facts(path: Path, samples: list[Sample]) -> list[dict[str, Any] | None]:
    """What is known of each test sample; empty where the data bring no such file."""
    return facts.of_samples(json_files.read_object(path), samples, str(path)) if path.is_file() else []


def read_pairs(source: Path, validate_ratio: float, seed: int) -> tuple[list[Pair], list[Pair], dict[str, float]]:
    """Pairs to train on and held out, and what came in, was dropped and went out; none of an empty list."""
    groups: list[list[Pair]] = []
    counts: Counter[str] = Counter()
    for index, record in enumerate(read(source, own="ranking")):
        pairs, seen = preferences.to_pairs(record, f"{source}, record {index}")
        groups.append(pairs)
        counts += seen
    train, held_out = preferences.split(groups, validate_ratio, seed)
    if groups and not (train and held_out):
        raise UserError(f"{source}: too few records for a training and a held-out part ({describe(counts)})")
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in train + held_out)
    report = {key: counts[key] for key in PAIR_COUNTS} | {
        "train": len(train),
        "validate": len(held_out),
        "chosen_longer_ratio": round(longer / max(1, len(train + held_out)), 4),
    }
    return train, held_out, report


SAMPLE_COUNTS = (
    "dialogues",
    "turns",
    "pairs",
    "answers_with_boilerplate",
    "dropped_trailing_turn",
    "dropped_short_answer",
    "dropped_empty_answer",
    "samples",
)
PAIR_COUNTS = ("records", "pairs", "dropped_ties")


def describe(counts: Mapping[str, float]) -> str:
    """Counts in one line, those of zero left out: `700 dialogues, 3774 turns, …`."""
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if value) or "nothing"


def read(source: Path, own: str) -> list[Any]:
    """The records of a file; UserError names the line to run where they are in another format than the `own` one."""
    records = json_files.read_records(source)
    advice = recognize.advice(source, records, own)
    if advice:
        raise UserError(f"{source}: {advice}")
    return [record for _, record in records]


def sha256(path: Path) -> str:
    """What `sha256sum` prints for the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    typer.run(main)
