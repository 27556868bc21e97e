"""`facts.json` beside the dialogues → what is known of each test sample, for data that come with such knowledge.

The file holds `vocabulary`, lists of names by kind, and `test`, a list of entries:

    key       of the history and the question, see `key`
    must      what a right answer names: [kind, wording, …] each, any one of the wordings will do
    may       names of the vocabulary that fit; any other name of it contradicts
    must_not  further texts that contradict
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.runtime.errors import UserError
from stages.text.records import History, Sample


def of_samples(document: Any, samples: Sequence[Sample], where: str) -> list[dict[str, Any] | None]:
    """For each sample `must` and, with the vocabulary's names, `must_not`; None where nothing is known.

    Args:
        document: the file's content.
        where: how an error message names the file.
    """
    try:
        vocabulary = [name for names in document["vocabulary"].values() for name in _texts(names)]
        known = {entry["key"]: _facts(entry, vocabulary) for entry in document["test"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: not the facts of test questions ({error!r}); stages/importing/facts.py describes the format"
        ) from None
    return [known.get(key(sample.history, sample.instruction)) for sample in samples]


def key(history: History, question: str) -> str:
    """A digest of the cleaned history and the question."""
    text = json.dumps([[list(turns) for turns in history], question], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _facts(entry: Mapping[str, Any], vocabulary: Sequence[str]) -> dict[str, Any]:
    may = set(_texts(entry["may"]))
    others = [name for name in vocabulary if name not in may]
    must = [_texts(fact, at_least=2) for fact in entry["must"]]
    return {"must": must, "must_not": [*others, *_texts(entry["must_not"])]}


def _texts(value: Any, at_least: int = 0) -> list[str]:
    if not isinstance(value, list) or len(value) < at_least or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{json.dumps(value, ensure_ascii=False)[:100]} where a list of texts belongs")
    return value
