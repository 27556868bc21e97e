"""A conversation: the rounds so far, and what each stack takes to have been said."""

from dataclasses import dataclass

from stages.text.records import History


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
