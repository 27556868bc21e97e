"""The dictionary: a key → its sentence in English and Chinese. Every word that a reader sees stands in words.json."""

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from stages.page.markup import Markup, element, join

LANGUAGES = ("en", "zh")


class Sentence(NamedTuple):
    """A sentence that is not yet in a language: its key and the texts, sentences or lists of them that it mentions."""

    key: str
    values: "Mapping[str, str | Sentence | list[Sentence]]" = MappingProxyType({})


@functools.cache
def dictionary() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(files(__package__).joinpath("words.json").read_text(encoding="utf-8"))
    return found


def say(sentence: "str | Sentence | list[Sentence]", language: str) -> str:
    """A sentence in a language; a plain text is the same in both."""
    if isinstance(sentence, Sentence):
        values = {name: say(value, language) for name, value in sentence.values.items()}
        return dictionary()[sentence.key][language].format(**values)
    if isinstance(sentence, list):
        return {"en": ", ", "zh": "、"}[language].join(say(part, language) for part in sentence)
    return sentence


def both(sentence: "str | Sentence") -> Markup:
    """The sentence in both languages, one of which the page hides; a dictionary key may stand for its sentence."""
    if isinstance(sentence, str):
        sentence = Sentence(sentence)
    return join(element("span", say(sentence, language), class_="say", lang=language) for language in LANGUAGES)
