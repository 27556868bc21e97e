"""Records → the one format that they are in; never a guess."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.importing import formats
from stages.importing.formats import Format
from stages.runtime.errors import UserError

FORMATS_DOCUMENT = "docs/data.md"


def recognize(records: Sequence[tuple[str, Any]], name: str | None, source: str, option: str) -> Format:
    """The format of these records, each with its place in `source`; records that match none do not count.

    Args:
        name: of the format, where the user gave it.
        option: of the command, that gives the name; for the message.

    Raises:
        UserError: no record is in a known format, some are in another than the first ones, or the records fit
            several formats.
    """
    if name is not None:
        if name not in formats.BY_NAME:
            raise UserError(f"{option}: no format `{name}`; there are: {', '.join(formats.BY_NAME)}")
        return formats.BY_NAME[name]
    common: list[Format] = []
    for place, record in records:
        found = formats.matching(record)
        both = [form for form in common if form in found]
        if common and found and not both:
            raise UserError(
                f"{source}, {place}: is {found[0].about}, but the records before are {common[0].about}; "
                f"split the file, or let {option} name one kind and drop the others"
            )
        common = both or found or common
    if not common:
        raise UserError(
            f"{source}: {_unknown(records[0][1]) if records else 'has no record'}; {FORMATS_DOCUMENT} lists the formats"
        )
    if len(common) > 1:
        choices = " or ".join(f"{option} {form.name} ({form.about})" for form in common)
        raise UserError(f"{source}: its records could be read in more than one way; choose {choices}")
    return common[0]


def advice(source: Path, records: Sequence[tuple[str, Any]], own: str) -> str | None:
    """What to do about a data file in another format than `own`, the project's; None where it is in that."""
    found = formats.matching(records[0][1]) if records else []
    if not found or own in [form.name for form in found]:
        return None
    option = {"dialogues": "FROM", "preferences": "PREFERENCES"}[found[0].kind]
    if found[0].kind != formats.BY_NAME[own].kind:
        return f"is {found[0].about}: these are {found[0].kind}, not {formats.BY_NAME[own].kind}"
    return f"is {found[0].about}; import it once: `make import {option}={shlex.quote(str(source))}`"


def _unknown(record: Any) -> str:
    if isinstance(record, dict):
        if "label" in record or "kto_tag" in record:
            return "single answers marked good or bad (KTO): a reward model needs pairs of answers to one question"
        if {"chosen", "rejected"} <= record.keys():
            return "chosen and rejected texts without the question (`prompt`)"
        keys = ", ".join(str(key)[:30] for key in list(record)[:12])
        return f"no known format: its first record has the keys {keys}"
    return f"no known format: its first record is a {type(record).__name__}"
