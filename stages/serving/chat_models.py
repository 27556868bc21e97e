"""The models that take part in a chat: question → answer, piece by piece.

Answers come from the same code as those of `predict`: with no history and the same key, they are the same.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from stages.generation.decoding import Decoding
from stages.generation.generate import eos_ids, generate
from stages.models import stack
from stages.models.base_model import Base
from stages.serving.interrupts import postponed
from stages.serving.streaming import AnswerStreamer, Streaming
from stages.text import encoding
from stages.text.records import History


class Reply(NamedTuple):
    text: str
    ended: bool
    """Whether the model ended it, and not the limit."""
    dropped_turns: int
    """The oldest turns that no longer fitted into the prompt."""
    cut_tokens: int
    """The end of the question that did not fit."""


class ChatModels:
    """One base in memory, and any number of stacks on it that answer by name. After a `with` block, it is as before."""

    def __init__(self, base: Base, device: Any, merge_adapters: bool) -> None:
        self._tokenizer = base.tokenizer()
        self._model = base.causal_lm(device)
        self._merge_adapters = merge_adapters
        self._stacks: dict[str, list[str]] = {}
        self._loaded: set[str] = set()
        self._scope = ExitStack()
        self._active: str | None = None

    def __enter__(self) -> "ChatModels":
        return self

    def __exit__(self, *_: object) -> None:
        self._deactivate()

    def add(self, name: str, folders: Sequence[Path]) -> None:
        """Let the stack of these adapters, as `stack.resolve` gave them, answer to `name`."""
        self._deactivate()
        adapters = {stack.lineage(folder).adapter: folder for folder in folders}
        missing = [adapter for adapter in adapters if adapter not in self._loaded]
        with postponed():  # an adapter that is loaded by half would stand in the way of the next try
            if missing:
                self._model = stack.load(self._model, [adapters[adapter] for adapter in missing])
                self._loaded.update(missing)
            self._stacks[name] = list(adapters)

    def answer(
        self,
        name: str,
        history: History,
        question: str,
        key: str,
        decoding: Decoding,
        max_source_length: int,
        max_new_tokens: int,
        show: Callable[[str], None] = lambda piece: None,
    ) -> Reply:
        """The answer of the model `name`; `show` gets its text in pieces while it is generated.

        Args:
            key: what seeds its randomness.

        Raises:
            UserError: `max_source_length` has no room for any question.
        """
        prompt = encoding.encode_prompt(self._tokenizer, history, question, max_source_length, "predict")
        self._activate(name)
        [(_, answer)] = generate(
            Streaming(self._model, AnswerStreamer(self._tokenizer, show)),
            [prompt.ids],
            [key],
            decoding,
            max_new_tokens,
            1,
            eos_ids(self._model, self._tokenizer),
            self._tokenizer.pad_token_id,
        )
        text = encoding.displayed(self._tokenizer, self._tokenizer.decode(answer.ids, skip_special_tokens=True))
        return Reply(text, answer.ended, prompt.dropped_turns, prompt.cut_tokens)

    def _activate(self, name: str) -> None:
        if name == self._active:
            return
        self._deactivate()
        with postponed():  # weights that are merged by half would belong to no stack
            if self._loaded:  # else there is nothing but the base, which knows no adapters
                adapters = self._stacks[name]
                self._scope.enter_context(stack.active(self._model, adapters))
                # With no adapter active, PEFT would still count the others as the ones to merge.
                self._scope.enter_context(stack.merged(self._model, only_if=self._merge_adapters and bool(adapters)))
            self._active = name

    def _deactivate(self) -> None:
        with postponed():
            self._scope.close()
            self._active = None
