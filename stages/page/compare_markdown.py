"""The comparison of runs → Markdown for a pull request."""

from collections.abc import Sequence

from stages.page import compare_tables
from stages.page.compare_settings import Comparison
from stages.page.i18n import Sentence, say
from stages.page.tables import Cell, Table

PLAIN_MARKS = ("unknown", "judge")
"""Marks of a difference that shows nothing: not in bold."""


def markdown(comparison: Comparison, notes: Sequence[Sentence], language: str) -> str:
    """What was changed, what that changed, and what can't be told.

    Args:
        notes: what the reader must know besides: runs that were left out, how far the intervals reach.
    """
    blocks = []
    changed, runs = compare_tables.changed(comparison), compare_tables.each_run(comparison)
    blocks.append(table(changed, language) if changed.rows else say(Sentence("compare.nothing-changed"), language))
    blocks.append(table(compare_tables.metrics(comparison), language))
    if runs:
        blocks.append(table(runs, language))
    blocks += [say(note, language) for note in notes]
    return "\n\n".join(blocks) + "\n"


def table(shown: Table, language: str) -> str:
    head = [_escaped(say(title, language)) for title in shown.head]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([_cell(c, language) for c in row] for row in shown.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell, language: str) -> str:
    text = say(cell.text, language)
    text = f"`{text.replace('|', chr(92) + '|')}`" if cell.style == "code" and "`" not in text else _escaped(text)
    if cell.note:
        text += f" ({cell.note})"
    if cell.mark:
        mark = say(Sentence(f"mark.{cell.mark}"), language)
        text += f" {mark}" if cell.mark in PLAIN_MARKS else f" **{mark}**"
    return text


def _escaped(text: str) -> str:
    """What would end the cell, or begin a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
