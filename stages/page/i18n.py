"""The dictionary: a key → its sentence in English and Chinese.

Every text that a reader sees is in i18n.json, but for the metrics' names, which their declarations bring.
"""

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from markupsafe import Markup, escape

from stages.metrics.definitions import METRICS

LANGUAGES = ("en", "zh")
LIST_SEPARATOR = {"en": ", ", "zh": "、"}


class Sentence(NamedTuple):
    """A sentence that is not yet in a language: its key and the texts, sentences or lists of them that it mentions."""

    key: str
    values: "Mapping[str, str | Sentence | list[Sentence]]" = MappingProxyType({})


@functools.cache
def dictionary() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(files(__package__).joinpath("i18n.json").read_text(encoding="utf-8"))
    return found | {f"metric.{metric.name}": {"en": metric.en, "zh": metric.zh} for metric in METRICS}


def add(texts: Mapping[str, dict[str, str]]) -> None:
    """Sentences of a page that is made outside of this room; none may be here already."""
    assert all(dictionary().get(key, text) == text for key, text in texts.items())
    dictionary().update(texts)


def say(sentence: "str | Sentence | list[Sentence]", language: str) -> str:
    """A sentence in a language; a plain text is the same in both."""
    if isinstance(sentence, Sentence):
        values = {name: say(value, language) for name, value in sentence.values.items()}
        return dictionary()[sentence.key][language].format(**values)
    if isinstance(sentence, list):
        return LIST_SEPARATOR[language].join(say(part, language) for part in sentence)
    return sentence


def say_escaped(value: "str | Sentence", language: str) -> Markup:
    """A sentence as HTML: the dictionary's text as it is, the texts that it mentions escaped."""
    if isinstance(value, Sentence):
        mentioned = {name: _say_mentioned(each, language) for name, each in value.values.items()}
        return Markup(dictionary()[value.key][language]).format(**mentioned)
    return escape(value)


def both(value: "str | Sentence") -> Markup:
    """A sentence as HTML in both languages, one of which the page hides; a plain text is the same in both."""
    if isinstance(value, str):
        return escape(value)
    span = Markup('<span class="say" lang="{}">{}</span>')
    return Markup("").join(span.format(language, say_escaped(value, language)) for language in LANGUAGES)


def _say_mentioned(value: "str | Sentence | list[Sentence]", language: str) -> Markup:
    if isinstance(value, list):
        return Markup(LIST_SEPARATOR[language]).join(say_escaped(part, language) for part in value)
    return say_escaped(value, language)
