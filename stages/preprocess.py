"""Dialogues and preference records → samples and pairs.

python -m stages.preprocess --help
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import contamination, dialogues, facts, preferences
from stages.text.records import Pair, Sample


class DataConfig(params.Section):
    dialogues: Annotated[str, Field(min_length=1)] = "data/sample"
    """Folder with train_data.json, validate_data.json and test_data.json."""
    preferences: Annotated[str, Field(min_length=1)] = "data/sample/preferences.json"
    """JSON file of preference records."""
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

    report: dict[str, Any] = {}
    folder, preference = Path(data.dialogues), Path(data.preferences)
    sources = {split: folder / f"{split}_data.json" for split in ("train", "validate", "test")}
    splits: dict[str, list[Sample]] = {}
    for split, source in sources.items():
        samples = splits[split] = []
        counts: Counter[str] = Counter()
        for index, dialogue in enumerate(read_list(source)):
            found, seen = dialogues.to_samples(dialogue, f"{source}, dialogue {index}")
            samples += [sample._replace(dialogue=index) for sample in found]
            counts += seen
        if not samples:
            raise UserError(f"{source}: no dialogue of it gives a sample")
        atomic.write_jsonl(to / f"{split}.jsonl", (sample._asdict() for sample in samples))
        report[split] = {key: counts[key] for key in SAMPLE_COUNTS}
    report["contamination"] = contamination.overlap(splits["test"], splits["train"])
    if (source := folder / "facts.json").is_file():
        known = facts.of_samples(read_json(source), splits["test"], str(source))
        atomic.write_jsonl(to / "facts.jsonl", known)
        report["facts"] = {"test": sum(each is not None for each in known)}

    groups: list[list[Pair]] = []
    totals: Counter[str] = Counter()
    for index, record in enumerate(read_list(preference)):
        found_pairs, seen = preferences.to_pairs(record, f"{preference}, record {index}")
        groups.append(found_pairs)
        totals += seen
    kept, held_out = preferences.split(groups, data.preferences_validate_ratio, seed)
    if not kept or not held_out:
        raise UserError(f"{preference}: too few records for a training and a held-out part")
    for name, pairs in (("train", kept), ("validate", held_out)):
        atomic.write_jsonl(to / f"preferences_{name}.jsonl", (pair._asdict() for pair in pairs))
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in kept + held_out)
    report["preferences"] = {key: totals[key] for key in PAIR_COUNTS} | {
        "train": len(kept),
        "validate": len(held_out),
        "chosen_longer_ratio": round(longer / len(kept + held_out), 4),
    }
    report["sha256"] = {name: sha256(source) for name, source in (sources | {"preferences": preference}).items()}
    atomic.write_json(log / "metrics.json", report)
    print({split: report[split]["samples"] for split in ("train", "validate", "test")}, report["preferences"])
    shares = (f"{report['contamination'][part]:.1%} of the {part}" for part in ("questions", "answers", "pairs"))
    print("of the test split, found in training word for word:", ", ".join(shares))


SAMPLE_COUNTS = (
    "dialogues",
    "turns",
    "pairs",
    "dropped_trailing_turn",
    "dropped_short_answer",
    "dropped_empty_answer",
    "samples",
)
PAIR_COUNTS = ("records", "pairs", "dropped_ties")


def sha256(path: Path) -> str:
    """What `sha256sum` prints for the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_list(path: Path) -> list[Any]:
    """A JSON file that holds a list; UserError names the file and where it breaks."""
    document = read_json(path)
    if not isinstance(document, list):
        raise UserError(f"{path}: expected a JSON list at the top")
    return document


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


if __name__ == "__main__":
    typer.run(main)
