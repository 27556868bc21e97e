"""Records of a known format → the project's dialogues and preference records, and an account of what was lost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.importing import formats
from stages.importing.conversation import Unusable, to_turns
from stages.importing.dialogues import MAX_TURNS
from stages.importing.formats import Format


@dataclass
class Account:
    """What was dropped and changed on the way."""

    dropped: Counter[str] = field(default_factory=Counter)
    """Records, by reason."""
    first: dict[str, str] = field(default_factory=dict)
    """Reason → the place of the first such record."""
    changes: Counter[str] = field(default_factory=Counter)
    """Things that were left out of records that stayed."""

    def lines(self) -> list[str]:
        """For the console."""
        dropped = [f"dropped {n}: {reason} (first: {self.first[reason]})" for reason, n in self.dropped.most_common()]
        return dropped + [f"changed: {n} {what}" for what, n in self.changes.most_common()]


def to_dialogues(
    records: Sequence[tuple[str, Any]], form: Format, prefixes: tuple[str, str], prefix_system: bool
) -> tuple[list[list[str]], Account]:
    """Dialogues: texts of the patient and the doctor in turn, each with its prefix."""

    def convert(record: Any, changes: Counter[str]) -> list[str]:
        turns, open_question = to_turns(formats.read(record, form), prefix_system, changes)
        if not any(answer.strip() for _, answer in turns):
            raise Unusable("no question with an answer")
        if 2 * len(turns) > MAX_TURNS:
            raise Unusable(f"more than {MAX_TURNS} turns")
        changes["questions at the end without an answer left out"] += open_question is not None
        return [prefix + text for turn in turns for prefix, text in zip(prefixes, turn, strict=True)]

    return _each(records, convert)


def to_preferences(
    records: Sequence[tuple[str, Any]], form: Format, prefix_system: bool
) -> tuple[list[dict[str, Any]], Account]:
    """Preference records: a question with its history and its answers, the best first."""

    def convert(record: Any, changes: Counter[str]) -> dict[str, Any]:
        preference = formats.read(record, form)
        history, question = to_turns(preference.messages, prefix_system, changes)
        if question is None:
            raise Unusable("the prompt does not end with a question")
        if len(set(preference.answers)) < 2:
            raise Unusable("all answers are the same")
        return {"instruction": question, "input": "", "output": preference.answers, "history": history}

    return _each(records, convert)


def _each(records: Sequence[tuple[str, Any]], convert: Callable[[Any, Counter[str]], Any]) -> tuple[list[Any], Account]:
    found, account, seen = [], Account(), set()
    for place, record in records:
        changes: Counter[str] = Counter()
        try:
            converted = convert(record, changes)
            if repr(converted) in seen:
                raise Unusable("the same as an earlier one")
        except Unusable as error:
            account.dropped[str(error)] += 1
            account.first.setdefault(str(error), place)
            continue
        seen.add(repr(converted))
        found.append(converted)
        account.changes += changes
    return found, account
