"""A conversation: the turns so far, and how each model remembers them."""

from dataclasses import dataclass

from stages.text.records import History


@dataclass(frozen=True)
class Turn:
    question: str
    answers: dict[str, str]
    """By the name of the model."""


class Conversation:
    """The turns so far. Each model goes on from its own answers, and from another's where it gave none."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    def add(self, question: str, answers: dict[str, str]) -> None:
        """Append a turn; one without any answer is forgotten."""
        if answers:
            self.turns.append(Turn(question, answers))

    def history(self, name: str) -> History:
        return [[turn.question, turn.answers.get(name, next(iter(turn.answers.values())))] for turn in self.turns]
