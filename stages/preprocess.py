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

from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import contamination, dialogues, facts, json_files, preferences
from stages.text.importers import recognize
from stages.text.records import Pair, Sample


class DataConfig(dialogues.DialogueRules):
    dialogues: Annotated[str, Field(min_length=1)] = "data/sample"
    """Folder with train_data.json, validate_data.json and test_data.json."""
    preferences: Annotated[str, Field(min_length=1)] = "data/sample/preferences.json"
    """JSON file of preference records; an empty list for a run without reward model and PPO (`make sft-only`)."""
    preferences_validate_ratio: params.Ratio = 0.15
    """Share of the preference questions held out to measure the reward model."""


@command
def main(
    to: Annotated[Path, typer.Option(help="folder for the JSON lines")],
    log: Annotated[Path, typer.Option(help="folder of metrics.json: what came in, was dropped and went out")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Turn dialogues into samples and preference records into pairs."""
    seed = params.load(params_file, "seed", int)
    data = params.load(params_file, "data", DataConfig)

    # Read everything before anything is written: a mistake in the last file leaves no half of the data.
    report: dict[str, Any] = {}
    folder, preference = Path(data.dialogues), Path(data.preferences)
    rows: dict[str, list[Any]] = {}
    if folder.is_file():
        read(folder, own="")
        raise UserError(
            f"data.dialogues: {folder} must be a folder with train_data.json and its like; see docs/data.md"
        )
    sources = {split: folder / f"{split}_data.json" for split in ("train", "validate", "test")}
    for split, source in sources.items():
        samples: list[Sample] = []
        counts: Counter[str] = Counter()
        for index, dialogue in enumerate(read(source, own="covid")):
            found, seen = dialogues.to_samples(dialogue, data, f"{source}, dialogue {index}")
            samples += [sample._replace(dialogue=index) for sample in found]
            counts += seen
        if not samples:
            raise UserError(f"{source}: no dialogue of it gives a sample ({describe(counts)})")
        rows[split] = samples
        report[split] = {key: counts[key] for key in SAMPLE_COUNTS}
    report["contamination"] = contamination.overlap(rows["test"], rows["train"])
    known: list[dict[str, Any] | None] = []
    if (source := folder / "facts.json").is_file():
        known = facts.of_samples(json_files.read_object(source), rows["test"], str(source))
        report["facts"] = {"test": sum(each is not None for each in known)}

    groups: list[list[Pair]] = []
    totals: Counter[str] = Counter()
    for index, record in enumerate(read(preference, own="ranking")):
        found_pairs, seen = preferences.to_pairs(record, f"{preference}, record {index}")
        groups.append(found_pairs)
        totals += seen
    train, held_out = preferences.split(groups, data.preferences_validate_ratio, seed)
    if groups and not (train and held_out):
        raise UserError(f"{preference}: too few records for a training and a held-out part")
    rows |= {"preferences_train": train, "preferences_validate": held_out}
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in train + held_out)
    report["preferences"] = {key: totals[key] for key in PAIR_COUNTS} | {
        "train": len(train),
        "validate": len(held_out),
        "chosen_longer_ratio": round(longer / max(1, len(train + held_out)), 4),
    }
    report["sha256"] = {name: sha256(source) for name, source in (sources | {"preferences": preference}).items()}

    for name, records in rows.items():
        atomic.write_jsonl(to / f"{name}.jsonl", (record._asdict() for record in records))
    if known:
        atomic.write_jsonl(to / "facts.jsonl", known)
    atomic.write_json(log / "metrics.json", report)
    for name in ("train", "validate", "test", "preferences"):
        print(f"{name}: {describe(report[name])}")
    print("of the test split, in training word for word:", report["contamination"])


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
