"""The templates of this room, with what they need to say a sentence; every text from the data is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from stages.page.i18n import Sentence, both, say_escaped


def environment(language: str | None) -> Environment:
    """Templates that speak one language, or with None both, one of which the page hides.

    In a template `t("page.run")` says a key of the dictionary and `value | say` a sentence or a plain text.
    """
    found = Environment(
        loader=PackageLoader("stages.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )

    def say(value: str | Sentence) -> str:
        return both(value) if language is None else say_escaped(value, language)

    found.filters["say"] = say
    found.globals["t"] = lambda key: say(Sentence(key))
    return found
