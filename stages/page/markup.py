"""Texts → HTML. Whatever is not `Markup` is escaped, so a text of a model cannot become a tag."""

from collections.abc import Iterable
from html import escape


class Markup(str):
    """HTML that this package made: stands as it is."""


def element(tag: str, *children: str | None, **attributes: str | None) -> Markup:
    """`<tag attributes>children</tag>`; a child or an attribute that is None is left out.

    Attribute names: `class_` is `class`, `data_x` is `data-x`.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[str | None]) -> Markup:
    """The children side by side, escaped where they are not `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children if c is not None))
