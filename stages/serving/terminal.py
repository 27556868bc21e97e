"""The keyboard and the screen of a conversation."""

from collections.abc import Callable

# A model, a model's name or a file can hold anything, escape sequences that rewrite the screen included.
_CONTROL = {code: "\ufffd" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def reader(prompt: str) -> Callable[[], str]:
    """A function that reads one message from the keyboard; the lines of a paste belong together.

    It raises EOFError for Ctrl-D and KeyboardInterrupt for Ctrl-C. What was typed is kept in memory only: questions
    about somebody's health don't belong in a history file.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    # For terminals that don't mark a paste: an Enter with more text right behind it was pasted, not typed.
    @keys.add("enter", filter=Condition(lambda: bool(get_app().key_processor.input_queue)))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(key_bindings=keys)

    def read() -> str:
        typed = session.prompt(prompt)
        # bytes that are not UTF-8 arrive as lone surrogates, which no tokenizer takes
        return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()

    return read


def harmless(text: str) -> str:
    """The text without its control characters."""
    return text.translate(_CONTROL)


def show(text: str) -> None:
    """Print a piece of an answer at once, without its control characters."""
    print(harmless(text), end="", flush=True)
