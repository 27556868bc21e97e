"""The error that a user can put right."""


class UserError(Exception):
    """Something the user can put right: the message names the file, line or key, and what to do, in one line."""

    def __init__(self, message: object):
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """The text in one line that moves no terminal's cursor and changes no colour.

    Names and values come from files of others: what a terminal would obey is shown as its escape, `\\x1b`.
    """
    return "".join(c if c.isprintable() or c == "\u3000" else ascii(c)[1:-1] for c in text)
