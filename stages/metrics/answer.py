"""What a metric of one answer may look at."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One answer to one test question."""

    text: str
    reference: str
    """The doctor's answer."""
    tokens: int
    ended: bool
    """It ended by itself, before the limit."""
    facts: Mapping[str, Any] | None = None
    """What is known of the question, a row of facts.jsonl; see `facts`."""
