"""What a model generates, handed on while it does: tokens one by one → whole pieces of text."""

from collections.abc import Callable, Sequence
from typing import Any


class Streaming:
    """The model, but what it generates is also handed on token by token."""

    def __init__(self, model: Any, streamer: Any) -> None:
        self._model = model
        self._streamer = streamer

    def parameters(self) -> Any:
        return self._model.parameters()

    def generate(self, **arguments: Any) -> Any:
        return self._model.generate(**arguments, streamer=self._streamer)


class Pieces:
    """Tokens one by one → pieces of text. A streamer in the sense of transformers."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._show = show
        self._prompt_seen = False
        self._ids: list[int] = []
        self._shown = 0

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._ids += value.flatten().tolist()
        # A character may be spread over several tokens: until the last, its bytes decode to the replacement character.
        # White space at the end waits too, since the answer is stripped.
        self._hand_on(self._text(self._ids).rstrip("\ufffd").strip())

    def end(self) -> None:
        """Nothing: `finish` knows which tokens belong to the answer."""

    def finish(self, ids: Sequence[int]) -> str:
        text = self._text(ids).strip()
        self._hand_on(text)
        return text

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _hand_on(self, text: str) -> None:
        if len(text) > self._shown:
            self._show(text[self._shown :])
            self._shown = len(text)
