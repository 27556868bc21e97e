"""A conversation at the terminal: what is typed is a question, or a command that begins with a slash."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.runtime import atomic
from stages.runtime.errors import UserError
from stages.serving import terminal
from stages.serving.chat_models import Reply, Speakers
from stages.serving.conversation import Conversation
from stages.serving.stack_names import Name

HELP = """\
/model [NAME [NAME]]  which stack answers: base, sft or ppo; two of them to compare
/clear                forget the conversation
/save [FILE]          write the conversation as JSON
/quit                 leave (or Ctrl-D)
Ctrl-C stops an answer. A paste of several lines is one message. ↑ brings back what you typed."""


class Repl:
    """Reads, answers, prints, until `/quit`.

    Args:
        names: who answers at first; `speakers` has them.
        folders: name → the adapter folders of the stack.
        ask: (name, history, question, number of the question, show) → the answer, shown while it comes.
        notice: goes into each saved conversation.
    """

    def __init__(
        self,
        speakers: Speakers,
        names: Sequence[Name],
        folders: Callable[[Name], Sequence[Path]],
        ask: Callable[..., Reply],
        notice: str,
    ) -> None:
        self._speakers, self._names, self._folders, self._ask, self._notice = speakers, names, folders, ask, notice
        self._conversation = Conversation()
        self._asked = 0

    def run(self) -> None:
        terminal.prepare()
        while True:
            try:
                text = terminal.read_message("\n> ")
            except KeyboardInterrupt:
                print("\n(Ctrl-D or /quit leaves)")
                continue
            except EOFError:
                print()
                return
            if text == "/quit":
                return
            try:
                if text.startswith("/") and "\n" not in text:
                    self._obey(*text.split())
                elif text:
                    self._answer(text)
            except KeyboardInterrupt:
                print(" [stopped]")
            except UserError as error:
                print(f"error: {error}")

    def _answer(self, question: str) -> None:
        """Show each stack's answer. Ctrl-C ends one answer; what was said by then counts as said."""
        answers = {}
        for name in self._names:
            said: list[str] = []

            def show(piece: str, said: list[str] = said) -> None:
                said.append(piece)
                terminal.show(piece)

            print(f"\n{name}: ", end="", flush=True)
            try:
                reply = self._ask(name, self._conversation.history(name), question, self._asked, show)
            except KeyboardInterrupt:
                print(" [stopped]")
            else:
                print("" if reply.ended else " [cut at predict.max_new_tokens]")
                if reply.cut_tokens:
                    print(f"(the last {reply.cut_tokens} tokens of the question did not fit)")
                elif reply.dropped_rounds:
                    print(f"({reply.dropped_rounds} of the first rounds left out: they no longer fit)")
            if said:
                answers[str(name)] = "".join(said)
        self._asked += 1
        self._conversation.add(question, answers)

    def _obey(self, order: str, *arguments: str) -> None:
        if order == "/clear":
            self._conversation.rounds.clear()
            print("(forgotten)")
        elif order == "/model":
            self._choose(arguments)
        elif order == "/save":
            self._save(Path(" ".join(arguments) or time.strftime("chat-%Y%m%d-%H%M%S.json")).expanduser())
        elif order == "/help":
            print(HELP)
        else:
            print(f"error: no command {order}; /help lists them")

    def _choose(self, words: Sequence[str]) -> None:
        if len(words) > 2 or len(set(words)) < len(words) or not set(words) <= set(Name):
            raise UserError(f"/model takes one or two of {', '.join(Name)}")
        names = [Name(word) for word in words] or self._names
        try:
            for name in names:
                self._speakers.add(name, self._folders(name))
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; run `dvc repro` to train it") from None
        self._names = names
        print(f"({' and '.join(names)})")

    def _save(self, file: Path) -> None:
        rounds = [asdict(each) for each in self._conversation.rounds]
        try:
            if file.exists():
                raise UserError(f"{file} is there already; name another file")
            atomic.write_json(file, {"notice": self._notice, "rounds": rounds})
        except OSError as error:
            raise UserError(f"{file} can't be written: {error.strerror}; name another file") from None
        print(f"({len(rounds)} {'round' if len(rounds) == 1 else 'rounds'} written to {file})")
