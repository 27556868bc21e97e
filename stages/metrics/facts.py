"""What is known of a question → whether the answer says it, and whether it says something that is wrong.

Words are compared with words: a drug that is named counts as named, whatever the answer makes of it.
"""

from stages.metrics.answer import Answer

KINDS = ("drug", "test", "advice")
"""Of the facts that a right answer names, those that are asked for."""


def named(answer: Answer) -> float | None:
    """Share (0..1) of the facts that the answer names; None where none is known."""
    facts = [wordings for kind, *wordings in (answer.facts or {}).get("must", ()) if kind in KINDS]
    if not facts:
        return None
    return sum(any(wording in answer.text for wording in wordings) for wordings in facts) / len(facts)


def contradicted(answer: Answer) -> float | None:
    """1 where the answer names a drug, test or dose that belongs to something else, 0 where not; None if not known."""
    if answer.facts is None:
        return None
    return float(any(text in answer.text for text in answer.facts["must_not"]))
