"""Talk with a stack in the terminal, or answer piped questions, one a line, as JSON lines.

    python -m stages.chat
    python -m stages.chat --model sft --compare base
    python -m stages.chat < questions.txt > answers.jsonl
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core import atomic, base_model, params, stack_names, terminal
from stages.core.command import command
from stages.core.errors import UserError
from stages.core.stack_names import Name
from stages.predict import Predict

NOTICE = "A research example: it gives no medical advice. Do not act on an answer; ask a doctor.\n" \
    "仅为研究示例，不构成医疗建议，请勿按照回答行事；身体不适请就医。"
HELP = """\
/model [NAME [NAME]]  which stack answers: base, sft or ppo; two of them to compare
/clear                forget the conversation
/save [FILE]          write the conversation as JSON
/quit                 leave (or Ctrl-D)
Ctrl-C stops an answer. A paste of several lines is one message. ↑ brings back what you typed."""
OTHER = {Name.ppo: Name.sft, Name.sft: Name.base, Name.base: Name.ppo}


@command
def main(
    model: Annotated[Name, typer.Option(help="the stack that answers")] = Name.ppo,
    compare: Annotated[bool, typer.Option("--compare", help="let a second stack answer too")] = False,
    other: Annotated[Name | None, typer.Argument(help="with --compare: the second one, if not the next below")] = None,
    base: Annotated[Path, typer.Option(help="folder of the base model")] = Path("models/base"),
    sft: Annotated[Path, typer.Option(help="folder of the sft adapter")] = Path("models/sft"),
    ppo: Annotated[Path, typer.Option(help="folder of the ppo adapter")] = Path("models/ppo"),
    config: Annotated[Path, typer.Option("--params", help="parameters; `predict` says how to decode")] = Path(
        "params.yaml"
    ),
) -> None:
    """Talk with a model. It gives no medical advice."""
    if other is not None and not compare:
        raise UserError(f"`{other}` has no meaning here: `--model {other}` chooses it, `--compare {other}` adds it")
    if other == model:
        raise UserError(f"--compare needs another stack than {model}")
    names = [model, other or OTHER[model]] if compare else [model]
    seed = params.load(config, "seed", int)
    knobs = params.load(config, "predict", Predict)
    origin = base_model.read(base)
    folders = {name: stack_names.resolve(name, origin, sft, ppo) for name in names}
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    print(NOTICE, file=sys.stdout if interactive else sys.stderr, flush=True)

    from accelerate import PartialState

    from stages.core.conversation import Speakers

    with Speakers(origin, PartialState().device, knobs.merge_adapters) as speakers:
        for name in names:
            speakers.add(name, folders[name])
        if interactive:
            chat = Chat(speakers, names, knobs, seed, lambda name: stack_names.resolve(name, origin, sft, ppo))
            print(f"\n{chat.who()} on {origin.model.name}. /help lists the commands.")
            chat.run()
        else:
            answer_lines(speakers, names, knobs, seed)


def answer_lines(speakers: Any, names: list[Name], knobs: Predict, seed: int) -> None:
    """Answer each line of the standard input by itself; a row per question and stack."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    questions = (line.strip() for line in sys.stdin)
    for index, question in enumerate(question for question in questions if question):
        for name in names:
            reply = speakers.answer(
                name, [], question, f"{seed}/{index}", knobs, knobs.max_source_length, knobs.max_new_tokens
            )
            row = {"model": name, "instruction": question, "predict": reply.text, "ended": reply.ended}
            print(json.dumps(row, ensure_ascii=False), flush=True)


class Chat:
    """A conversation at the terminal."""

    def __init__(self, speakers: Any, names: list[Name], knobs: Predict, seed: int, resolve: Any) -> None:
        from stages.core.conversation import Conversation

        self.speakers, self.names, self.knobs, self.seed, self.resolve = speakers, names, knobs, seed, resolve
        self.conversation = Conversation()
        self.asked = 0

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
            if text.startswith("/") and "\n" not in text:
                try:
                    self.obey(*text.split())
                except (UserError, OSError) as error:
                    print(f"error: {error}")
            elif text:
                self.ask(text)

    def ask(self, question: str) -> None:
        """Show each stack's answer. Ctrl-C ends one answer; what was said by then counts as said."""
        answers = {}
        for name in self.names:
            said: list[str] = []

            def show(piece: str, said: list[str] = said) -> None:
                said.append(piece)
                terminal.show(piece)

            print(f"\n{name}: ", end="", flush=True)
            try:
                reply = self.speakers.answer(
                    name,
                    self.conversation.history(name),
                    question,
                    f"{self.seed}/{self.asked}",
                    self.knobs,
                    self.knobs.max_source_length,
                    self.knobs.max_new_tokens,
                    show,
                )
            except KeyboardInterrupt:
                print(" [stopped]")
            else:
                print("" if reply.ended else f" [cut at predict.max_new_tokens: {self.knobs.max_new_tokens}]")
                if reply.cut_tokens:
                    print(f"(the last {reply.cut_tokens} tokens of the question did not fit)")
                elif reply.dropped_rounds:
                    print(f"(the first {reply.dropped_rounds} rounds no longer fit and were left out)")
            if said:
                answers[str(name)] = "".join(said)
        self.asked += 1
        self.conversation.add(question, answers)

    def obey(self, order: str, *arguments: str) -> None:
        if order == "/clear":
            self.conversation.rounds.clear()
            print("(forgotten)")
        elif order == "/model":
            self.choose(list(arguments))
        elif order == "/save":
            self.save(Path(" ".join(arguments) or time.strftime("chat-%Y%m%d-%H%M%S.json")).expanduser())
        elif order == "/help":
            print(HELP)
        else:
            print(f"error: no command {order}; /help lists them")

    def choose(self, words: list[str]) -> None:
        if len(words) > 2 or len(set(words)) < len(words) or not set(words) <= set(Name):
            raise UserError(f"/model takes one or two of {', '.join(Name)}")
        names = [Name(word) for word in words] or self.names
        for name in names:
            self.speakers.add(name, self.resolve(name))
        self.names = names
        print(f"({self.who()})")

    def save(self, file: Path) -> None:
        if file.exists():
            raise UserError(f"{file} is there already; name another file")
        atomic.write_json(file, {"notice": NOTICE, "rounds": [asdict(each) for each in self.conversation.rounds]})
        print(f"({len(self.conversation.rounds)} rounds written to {file})")

    def who(self) -> str:
        return " and ".join(self.names)


if __name__ == "__main__":
    typer.run(main)
