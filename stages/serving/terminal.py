"""The keyboard and the screen of a conversation."""

import select
import sys

PASTE_GAP = 0.05
"""Seconds: a line that follows within this time was pasted, not typed."""

# A model can say anything, escape sequences that rewrite the screen included.
_HARMLESS = {code: "\ufffd" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def prepare() -> None:
    """Turn on line editing, the arrow keys and pasting in one piece, where this Python has them.

    What was typed is kept in memory only: questions about somebody's health don't belong in a history file.
    """
    try:
        import readline
    except ImportError:
        return
    if "libedit" not in (readline.__doc__ or ""):
        readline.parse_and_bind("set enable-bracketed-paste on")


def read_message(prompt: str) -> str:
    """One message from the keyboard; the lines of a paste belong together.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
    """
    lines = [input(prompt)]
    # For terminals and line editors that don't mark a paste: its next line is there already.
    while select.select([sys.stdin], [], [], PASTE_GAP)[0]:
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines).strip()


def show(text: str) -> None:
    """Print a piece of an answer at once, without its control characters."""
    print(text.translate(_HARMLESS), end="", flush=True)
