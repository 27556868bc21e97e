"""Your own dialogues and preferences, in a common format → the project's own, and a profile that names them.

    python -m stages.import_data --from chats.jsonl --preferences pairs.jsonl --name mydata

docs/data.md lists the formats and tells what is done with each.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.importing import convert, recognize, sources
from stages.importing.dialogues import DialogueRules
from stages.importing.formats import Format
from stages.importing.split import split as split_dialogues
from stages.runtime import atomic, params
from stages.runtime.command import command
from stages.runtime.errors import UserError

FILES = ("train_data.json", "validate_data.json", "test_data.json", "preferences.json", ".gitignore")
IGNORED = "# Texts of others: not into Git by accident.\n*\n"
WRITTEN = "# Written by `make import`"


class System(StrEnum):
    drop = "drop"
    prefix = "prefix"


@command
def main(
    source: Annotated[str, typer.Option("--from", help="dialogues: a file, a folder, or a data set's id on the hub")],
    preferences: Annotated[str | None, typer.Option(help="preferences, likewise")] = None,
    name: Annotated[str | None, typer.Option(help="what to call the data; by default the file's name")] = None,
    form: Annotated[str | None, typer.Option("--format", help="of the dialogues, where it is not clear")] = None,
    preferences_format: Annotated[str | None, typer.Option(help="of the preferences, likewise")] = None,
    split: Annotated[str | None, typer.Option(help="of a data set with several splits: one, or `all`")] = None,
    system: Annotated[System, typer.Option(help="drop system messages, or prefix the question")] = System.drop,
    like: Annotated[str | None, typer.Option(help="a profile whose other parameters the new one takes over")] = None,
    validate: Annotated[float, typer.Option(min=0.01, max=0.4, help="part of the dialogues for validation")] = 0.1,
    test: Annotated[float, typer.Option(min=0.01, max=0.4, help="part of the dialogues to test on")] = 0.1,
    seed: Annotated[int, typer.Option(help="draws the three parts")] = 42,
    replace: Annotated[bool, typer.Option("--replace", help="take the place of an earlier import")] = False,
    data: Annotated[Path, typer.Option(help="folder that gets a folder of the data")] = Path("data"),
    profiles: Annotated[Path, typer.Option(help="folder of the profiles")] = Path("profiles"),
) -> None:
    """Import your own data."""
    name = name or re.sub(r"\W+", "-", Path(source).stem).strip("-") or "mydata"
    check_name(name, data, profiles, replace)
    rules = DialogueRules()
    prefixes = (rules.patient_prefix, rules.doctor_prefix)
    profile = make_profile(name, data, profiles, like, rules)

    records, found = recognized(source, split, form, "dialogues", "--format")
    dialogues, account = convert.to_dialogues(records, found, prefixes, system == System.prefix)
    tell(source, found, len(records), len(dialogues), account)
    for dialogue in dialogues[:5]:
        print("  · " + printable("  ".join(dialogue[:4])))
    parts = split_dialogues(dialogues, validate, test, seed, source)

    pairs: list[dict[str, Any]] = []
    if preferences is not None:
        records, found = recognized(preferences, split, preferences_format, "preferences", "--preferences-format")
        pairs, account = convert.to_preferences(records, found, system == System.prefix)
        tell(preferences, found, len(records), len(pairs), account)
        if len({pair["instruction"] for pair in pairs}) < 3:
            raise UserError(f"{preferences}: one or two questions are too few: two are held out of training")
        for pair in pairs[:5]:
            better, *_, worse = map(printable, pair["output"])
            print(f"  · {printable(pair['instruction'])}\n      better: {better}\n      worse:  {worse}")

    with atomic.folder(data / name) as folder:
        for part, rows in parts.items():
            atomic.write_json(folder / f"{part}_data.json", rows)
        atomic.write_json(folder / "preferences.json", pairs)
        atomic.write_text(folder / ".gitignore", IGNORED)
    atomic.write_text(profiles / f"{name}.yaml", profile)
    print(f"{data / name}: " + ", ".join(f"{len(rows)} {part}" for part, rows in parts.items()) + f" (seed {seed})")
    target = "repro" if pairs else "sft-only    # no preferences, so no reward model and no PPO"
    print(f"next: make profile NAME={name} && make {target}")


def check_name(name: str, data: Path, profiles: Path, replace: bool) -> None:
    """Raise UserError for a name that is no file's, is taken, or belongs to the project."""
    if not re.fullmatch(r"[\w-]{1,60}", name):
        raise UserError(f"--name: {name!r} must be of letters, digits, - and _")
    if name in ("processed", "base", "sample", "covid-dialogue", "preferences", "default", "smallest", "covid-tiny"):
        raise UserError(f"--name: {name} belongs to the project; name another")
    for path in (data / name, profiles / f"{name}.yaml"):
        if path.exists() and (other := not_imported(path)):
            raise UserError(f"{other}: exists, and no import wrote it; name another with --name")
        if path.exists() and not replace:
            raise UserError(f"{path}: exists; name another with --name, or add --replace")


def not_imported(path: Path) -> Path | None:
    """What of an existing folder or profile an import did not write, and must not replace."""
    if path.suffix == ".yaml":
        return None if path.read_text(encoding="utf-8", errors="replace").startswith(WRITTEN) else path
    if not (path / ".gitignore").is_file() or (path / ".gitignore").read_text(encoding="utf-8") != IGNORED:
        return path
    return next((file for file in sorted(path.iterdir()) if file.name not in FILES), None)


def recognized(
    source: str, split: str | None, name: str | None, kind: str, option: str
) -> tuple[sources.Records, Format]:
    """The records of `source` and their format; raises UserError when they are of the other kind."""
    records = sources.read(source, split)
    found = recognize.recognize(records, name, source, option)
    if found.kind != kind:
        other = {"preferences": "PREFERENCES=", "dialogues": "FROM="}[found.kind]
        raise UserError(f"{source}: these are {found.kind} ({found.about}); give them as {other}")
    return records, found


def tell(source: str, form: Format, read: int, usable: int, account: convert.Account) -> None:
    """Print what was recognised and lost; raises UserError when nothing is left."""
    print(f"{printable(source)}: {form.about}; {usable} of {read} {form.kind} can be used")
    for line in account.lines():
        print(f"  {printable(line, 300)}")
    if not usable:
        raise UserError(f"{source}: nothing is left to import")


def printable(text: str, length: int = 100) -> str:
    """The text in one line, cut, and without anything that could move a terminal's cursor."""
    plain = "".join(character if character.isprintable() else " " for character in text[: length + 1])
    return plain if len(text) <= length else plain[:length] + "…"


def make_profile(name: str, data: Path, profiles: Path, like: str | None, rules: DialogueRules) -> str:
    """The text of a profile: another one's parameters, if wanted, and the data; nothing of them is left out."""
    import yaml

    overlay: dict[str, Any] = {}
    if like is not None:
        file = profiles / f"{like}.yaml"
        if not file.is_file():
            raise UserError(f"--like: there is no profile {file}")
        overlay = params.read(file)
        if not isinstance(overlay.get("data", {}), dict):
            raise UserError(f"{file}: `data` must be a section")
    folder = data / name
    overlay["data"] = overlay.get("data", {}) | {
        "patient_prefix": rules.patient_prefix,
        "doctor_prefix": rules.doctor_prefix,
        "dialogues": folder.as_posix(),
        "preferences": (folder / "preferences.json").as_posix(),
        "boilerplate": [],
        "min_answer_length": 1,
    }
    text = yaml.safe_dump(overlay, allow_unicode=True, sort_keys=False, width=120)
    return f"{WRITTEN}{f', like {like}' if like else ''}.\n{text}"


if __name__ == "__main__":
    typer.run(main)
