"""A conversation at the terminal: what is typed is a question, or a command that begins with a slash."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.runtime import atomic
from stages.runtime.errors import UserError
from stages.serving import terminal
from stages.serving.chat_models import ChatModels, Reply
from stages.serving.conversation import Conversation
from stages.serving.model_names import Name

HELP = """\
/model [NAME [NAME]]  which model answers: base, sft or ppo; two of them to compare
/clear                forget the conversation
/save [FILE]          write the conversation as JSON
/quit                 leave (or Ctrl-D)
Ctrl-C stops an answer. A paste of several lines is one message. ↑ brings back what you typed."""


class Repl:
    """Reads, answers, prints, until `/quit`.

    Args:
        names: who answers at first; `models` has them.
        folders: name → its adapter folders.
        ask: (name, history, question, number of the question, show) → the answer, shown while it comes.
        notice: goes into each saved conversation.
    """

    def __init__(
        self,
        models: ChatModels,
        names: Sequence[Name],
        folders: Callable[[Name], Sequence[Path]],
        ask: Callable[..., Reply],
        notice: str,
    ) -> None:
        self._models, self._names, self._folders, self._ask, self._notice = models, names, folders, ask, notice
        self._conversation = Conversation()
        self._asked = 0

    def run(self) -> None:
        read = terminal.reader("> ")
        while True:
            print()
            try:
                text = read()
            except KeyboardInterrupt:
                print("(Ctrl-D or /quit leaves)")
                continue
            except EOFError:
                return
            if text == "/quit":
                return
            try:
                if text.startswith("/") and "\n" not in text:
                    self._run_command(*text.split())
                elif text:
                    self._answer(text)
            except KeyboardInterrupt:
                print(" [stopped]")
            except UserError as error:
                print(terminal.harmless(f"error: {error}"))

    def _answer(self, question: str) -> None:
        """Show each model's answer. Ctrl-C ends one answer; what it showed until then is its answer."""
        answers = {}
        for name in self._names:
            pieces: list[str] = []

            def show(piece: str, pieces: list[str] = pieces) -> None:
                pieces.append(piece)
                terminal.show(piece)

            print(f"\n{name}: ", end="", flush=True)
            try:
                reply = self._ask(name, self._conversation.history(name), question, self._asked, show)
            except KeyboardInterrupt:
                print(" [stopped]")
                if pieces:
                    answers[str(name)] = "".join(pieces)
                continue
            print("" if reply.ended else " [cut at predict.max_new_tokens]")
            if reply.cut_tokens:
                print(f"(the last {reply.cut_tokens} tokens of the question did not fit)")
            elif reply.dropped_turns:
                print(f"(the first {reply.dropped_turns} turns left out: they no longer fit)")
            if reply.text:
                answers[str(name)] = reply.text
        self._asked += 1
        self._conversation.add(question, answers)

    def _run_command(self, command: str, *arguments: str) -> None:
        if command == "/clear":
            self._conversation.turns.clear()
            print("(forgotten)")
        elif command == "/model":
            self._choose(arguments)
        elif command == "/save":
            self._save(" ".join(arguments) or time.strftime("chat-%Y%m%d-%H%M%S.json"))
        elif command == "/help":
            print(HELP)
        else:
            raise UserError(f"no command {command}; /help lists them")

    def _choose(self, arguments: Sequence[str]) -> None:
        if len(arguments) > 2 or len(set(arguments)) < len(arguments) or not set(arguments) <= set(Name):
            raise UserError(f"/model takes one or two of {', '.join(Name)}")
        names = [Name(argument) for argument in arguments] or self._names
        try:
            for name in names:
                self._models.add(name, self._folders(name))
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; run `dvc repro` to train it") from None
        self._names = names
        print(f"({' and '.join(names)})")

    def _save(self, name: str) -> None:
        turns = [asdict(turn) for turn in self._conversation.turns]
        try:
            file = Path(name).expanduser()
            if file.exists():
                raise UserError(f"{file} exists already; name another file")
            atomic.write_json(file, {"notice": self._notice, "turns": turns})
        except (OSError, RuntimeError, ValueError) as error:  # the last two: `~nobody`, a NUL byte
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{name} can't be written: {reason}; name another file") from None
        print(terminal.harmless(f"({len(turns)} {'turn' if len(turns) == 1 else 'turns'} written to {file})"))
