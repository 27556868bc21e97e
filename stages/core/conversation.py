"""A conversation, and the stacks that take part in it: question → answer, piece by piece.

Answers come from the same code as those of `predict`: with no history and the same key, they are the same.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stages.core import chat_format, stack
from stages.core.base_model import Base
from stages.core.errors import UserError
from stages.core.generation import Decoding, eos_ids, generate
from stages.core.records import History


@dataclass(frozen=True)
class Round:
    question: str
    answers: dict[str, str]
    """By the name of the stack."""


class Conversation:
    """The rounds so far. Each stack goes on from its own answers, and from another's where it gave none."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []

    def add(self, question: str, answers: dict[str, str]) -> None:
        if answers:
            self.rounds.append(Round(question, answers))

    def history(self, name: str) -> History:
        return [[r.question, r.answers.get(name, next(iter(r.answers.values())))] for r in self.rounds]


class Reply(NamedTuple):
    text: str
    ended: bool
    """Whether the model ended it, and not the limit."""
    dropped_rounds: int
    """The oldest rounds that no longer fitted into the prompt."""
    cut_tokens: int
    """The end of the question that did not fit."""


class Speakers:
    """One base in memory, and any number of stacks on it that answer by name. After a `with` block, it is as before."""

    def __init__(self, origin: Base, device: Any, merge_adapters: bool) -> None:
        self._tokenizer = origin.tokenizer()
        self._model = origin.causal_lm(device)
        self._merge_adapters = merge_adapters
        self._stacks: dict[str, list[str]] = {}
        self._loaded: set[str] = set()
        self._scope = ExitStack()
        self._active: str | None = None

    def __enter__(self) -> "Speakers":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def add(self, name: str, folders: Sequence[Path]) -> None:
        """Let the stack of these adapters, as `stack.resolve` gave them, answer to `name`."""
        self._leave()
        adapters = {stack.lineage(folder).adapter: folder for folder in folders}
        missing = [adapter for adapter in adapters if adapter not in self._loaded]
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
        """The answer of the stack `name`; `show` gets its text in pieces while it is generated.

        Args:
            key: what seeds its randomness.

        Raises:
            UserError: `max_source_length` has no room for any question.
        """
        try:
            prompt = chat_format.encode_prompt(self._tokenizer, history, question, max_source_length)
        except ValueError as error:
            raise UserError(f"params.yaml: predict.max_source_length: {error}") from None
        self._activate(name)
        pieces = _Pieces(self._tokenizer, show)
        [(_, answer)] = generate(
            _Streaming(self._model, pieces),
            [prompt.ids],
            [key],
            decoding,
            max_new_tokens,
            1,
            eos_ids(self._model, self._tokenizer),
            self._tokenizer.pad_token_id,
        )
        text = pieces.finish(answer.ids)
        return Reply(text, answer.ended, prompt.dropped_rounds, prompt.cut_tokens)

    def _activate(self, name: str) -> None:
        if name == self._active:
            return
        self._leave()
        if self._loaded:  # else there is nothing but the base, which knows no adapters
            adapters = self._stacks[name]
            self._scope.enter_context(stack.active(self._model, adapters))
            # With no adapter active, PEFT would still count the others as the ones to merge.
            self._scope.enter_context(stack.merged(self._model, only_if=self._merge_adapters and bool(adapters)))
        self._active = name

    def _leave(self) -> None:
        self._scope.close()
        self._active = None


class _Streaming:
    """The model, but what it generates is also handed on token by token."""

    def __init__(self, model: Any, streamer: Any) -> None:
        self._model = model
        self._streamer = streamer

    def parameters(self) -> Any:
        return self._model.parameters()

    def generate(self, **arguments: Any) -> Any:
        return self._model.generate(**arguments, streamer=self._streamer)


class _Pieces:
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
