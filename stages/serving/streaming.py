"""An answer handed on while it is generated."""

import re
from collections.abc import Callable
from typing import Any

from transformers import TextStreamer

from stages.text import encoding

UNSETTLED = re.compile(r"[\s,!:;?\[\]训练时间]*$")
"""An end that later text may still change: white space is stripped, and see `chatglm.prompt.clean_up_response`."""


class AnswerStreamer(TextStreamer):
    """Gives `show` an answer piece by piece, in the form in which `encoding.displayed` shows the whole."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._show = show
        self._text = ""
        self._shown = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._text += text
        settled = encoding.displayed(self.tokenizer, self._text if stream_end else UNSETTLED.sub("", self._text))
        if len(settled) > self._shown:
            self._show(settled[self._shown :])
            self._shown = len(settled)


class Streaming:
    """The model, but a streamer gets what it generates."""

    def __init__(self, model: Any, streamer: Any) -> None:
        self._model = model
        self._streamer = streamer

    def parameters(self) -> Any:
        return self._model.parameters()

    def generate(self, **arguments: Any) -> Any:
        return self._model.generate(**arguments, streamer=self._streamer)
