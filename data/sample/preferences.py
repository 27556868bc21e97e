"""Preference records: a question of the sample world and answers ranked best first.

What makes an answer better is mostly its content, so most pairs can only be told by the question: the worse answer is
the right one of another illness, of another person, or of another question, as fluent and often as long as the better
one. Among right answers the one that says more is better; among wrong ones the one that says less. Padding, a foreign
addition, a repetition, stray characters or a broken sentence lose: with few such pairs PPO rambled (see README.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import doctor
import patient
from dialogues import Round, draw
from doctor import Case
from facts import entry
from world import CASES, TOPICS, Topic, complaint, person

FIRST = {"drug": 5, "cause": 2.5, "test": 3, "care": 1, "diet": 0.8, "warn": 1, "covid": 1, "open": 1.5}
FIRST_CHRONIC = {"refill": 3, "dose": 2, "test": 2.5, "care": 1.5, "target": 1, "miss": 1}
LATER = {"dose": 3, "test": 2, "worse": 2, "care": 1, "warn": 1, "diet": 0.8, "side": 0.8, "stop": 0.8}
PADDING = (
    "有变化随时再问我|不要太紧张，放宽心|祝您早日康复|感谢您的理解和配合|每个人的情况都不一样|具体情况要具体分析|希望我的回答对您有帮助|"
    "您的问题我已经认真看了|这个情况比较常见|有问题随时联系我|您的心情我能理解|请您耐心等一等"
)


@dataclass(frozen=True)
class Prompt:
    """A question with its history, and how to write a right answer of some size."""

    history: list[list[str]]
    question: str
    intent: str
    case: Case | None
    topic: Topic | None = None

    def right(self, rng: Random, size: str) -> str:
        """A right answer."""
        if self.topic:
            return doctor.topic_answer(rng, self.topic, size)
        return doctor.answer(rng, self.case, self.intent, size)


Answer = tuple[str, str]
"""What kind of answer it is, and its text."""


def prompt(rng: Random) -> Prompt:
    """A question: mostly an opening, else a follow-up to one round, now and then an everyday question."""
    if rng.random() < 0.08:
        topic = rng.choice(TOPICS)
        return Prompt([], patient.topic_question(rng, topic, first=True), "topic", None, topic)
    illness, kind = rng.choice(CASES)
    case = Case(illness, person(rng, kind))
    if rng.random() < 0.24 and case.treatment:
        first = "refill" if illness.chronic else rng.choice(("drug", "drug", "open"))
        said = patient.opening(rng, case, first, _words(rng, case, first))
        intent = draw(rng, {i: w for i, w in LATER.items() if not illness.chronic or i != "worse"})
        history = [[said, doctor.answer(rng, case, first, "short")]]
        return Prompt(history, patient.follow_up(rng, case, intent), intent, case)
    intent = draw(rng, FIRST_CHRONIC if illness.chronic else FIRST)
    if intent == "covid" and illness.name not in patient.INFECTIOUS_LOOK:
        intent = "test"
    if rng.random() < 0.13:
        intent = "alarm"
    return Prompt([], patient.opening(rng, case, intent, _words(rng, case, intent)), intent, case)


def _words(rng: Random, case: Case, intent: str) -> str:
    """The complaint; a chronic patient's words ask for nothing else than the question does."""
    while True:
        words = complaint(rng, case.illness, case.person)
        if not case.illness.chronic or intent == "refill" or not words.endswith(("了", "停药")):
            return words


def near(rng: Random, length: int, write: Callable[[], str], tries: int = 12) -> str:
    """Of several drafts the one whose length is nearest, or one or two characters shorter."""
    length -= rng.choice((0, 1, 1, 2))
    return min((write() for _ in range(tries)), key=lambda text: abs(len(text) - length))


def other_question(rng: Random, asked: Prompt, size: str, length: int = 0) -> Answer:
    """The right answer to the same kind of question about another illness or topic."""
    if asked.topic:
        topic = rng.choice([topic for topic in TOPICS if topic.fact != asked.topic.fact])
        return "other question", near(rng, length or 20, lambda: doctor.topic_answer(rng, topic, size))
    case = asked.case
    while True:
        illness, kind = rng.choice(CASES)
        same_person = kind == case.person.kind or rng.random() < 0.15
        fits = same_person and illness.chronic == case.illness.chronic and illness.test != case.illness.test
        fits = fits and (illness.place != case.illness.place or asked.intent != "alarm")
        other = Case(illness, person(rng, kind))
        drug = other.treatment and other.treatment.drug
        if fits and drug and drug.name not in asked.question and drug != (case.treatment and case.treatment.drug):
            break

    def write() -> str:
        return doctor.answer(rng, other, asked.intent, size)

    return "other question", near(rng, length, write) if length else write()


def other_person(rng: Random, asked: Prompt, size: str, length: int) -> Answer | None:
    """The answer for another kind of person with the same illness: another drug or another dose."""
    case = asked.case
    if not case or not case.treatment or asked.intent not in ("drug", "dose", "open"):
        return None
    kinds = [kind for kind, treatment in case.illness.treatments.items() if treatment and treatment != case.treatment]
    if not kinds:
        return None
    other = Case(case.illness, person(rng, rng.choice(kinds)))
    mine, theirs = case.treatment, other.treatment
    if mine.drug == theirs.drug and size == "short":
        text = near(rng, length, lambda: doctor.answer(rng, other, "dose", size))
    else:
        text = near(rng, length, lambda: doctor.answer(rng, other, asked.intent, size))
    names = mine.drug == theirs.drug and theirs.dose.amount not in text
    return None if names else ("other person", text)


def other_intent(rng: Random, asked: Prompt, length: int) -> Answer | None:
    """A true sentence about the right illness that answers another question."""
    if (
        not asked.case
        or asked.case.illness.chronic
        or asked.intent not in ("drug", "test", "cause", "dose", "course", "diet")
    ):
        return None
    choices = [intent for intent in ("drug", "test", "cause", "diet", "warn", "course") if intent != asked.intent]
    if asked.intent == "dose":
        choices.remove("drug")
    intent = rng.choice(choices)
    return "other intent", near(rng, length, lambda: doctor.answer(rng, asked.case, intent, "short"))


def other_urgency(rng: Random, asked: Prompt) -> Answer | None:
    """Home treatment where the finding is worrying, or an emergency where it is not."""
    if not asked.case or not asked.case.treatment or asked.intent not in ("alarm", "open", "drug"):
        return None
    intent = rng.choice(("drug", "open")) if asked.intent == "alarm" else "alarm"
    if asked.case.illness.chronic:
        return None
    return "other urgency", doctor.answer(rng, asked.case, intent, rng.choice(("short", "medium")))


def padded(rng: Random, text: str) -> str:
    """The text with closing formulas that add nothing."""
    lines = rng.sample(PADDING.split("|"), rng.choice((1, 2, 2, 3)))
    before = lines.pop() + "。" if len(lines) > 1 and rng.random() < 0.4 else ""
    return before + text + "".join(line + "。" for line in lines)


def spoilt(rng: Random, text: str) -> Answer:
    """A repetition or a broken sentence."""
    if rng.random() < 0.5:
        return "repeated", text + text[: text.index("。") + 1] * rng.choice((1, 2))
    return "cut", text[: max(3, int(len(text) * rng.uniform(0.3, 0.6)))].rstrip("，。")


def mixed(rng: Random, asked: Prompt, right: str) -> Answer:
    """A right beginning with a foreign addition."""
    return "foreign addition", right + other_question(rng, asked, "short")[1]


def foreign(rng: Random, asked: Prompt) -> str:
    """A sentence that is right for another illness or topic and says nothing that holds here too."""
    mine = ()
    if asked.case:
        illness, drug = asked.case.illness, asked.case.treatment and asked.case.treatment.drug.name
        mine = (*illness.care, illness.diet, illness.avoid, illness.test.name, illness.place, drug or illness.name)
    while True:
        if rng.random() < (0.75 if asked.topic else 0.25):  # what lies near is mistaken for an answer
            text = doctor.topic_answer(rng, rng.choice([topic for topic in TOPICS if topic != asked.topic]), "short")
        else:
            illness, kind = rng.choice([case for case in CASES if case[0].treatments[case[1]]])
            text = doctor.answer(rng, Case(illness, person(rng, kind)), rng.choice(FOREIGN), "short")
        if not any(own in text for own in mine):
            return text


def worsened(rng: Random, asked: Prompt, right: str) -> Answer:
    """A right answer that goes on with what is true elsewhere, says again what it has said, or has stray characters."""
    how = rng.random()
    if how < 0.55:
        return "foreign addition", right + "".join(foreign(rng, asked) for _ in range(rng.choice((1, 1, 2, 2, 3, 4))))
    clauses = right.removesuffix("。").replace("。", "，").split("，")
    if how < 0.8:
        again = [rng.choice(clauses) for _ in range(rng.choice((1, 1, 2, 3)))]
        return "repeated", right + rng.choice(("，", "。")).join(again) + "。"
    return "garbled", garbled(rng, right, foreign(rng, asked))


def garbled(rng: Random, text: str, others: str) -> str:
    """A text with one to three stray characters of another one, inserted or in another character's place."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        starts = [0, *(at + 1 for at, character in enumerate(text[:-1]) if character in "，。")]
        at = rng.choice(starts) if rng.random() < 0.5 else rng.randrange(len(text) - 1)
        stray = rng.choice([character for character in others if character not in "，。"])
        text = text[:at] + stray + text[at + (rng.random() < 0.5) :]
    return text


FOREIGN = ("drug", "dose", "care", "warn", "diet", "test", "course", "cause")
"""The questions whose answers are added where nobody asked them."""
WORSENED = 0.5
"""Of the records that end with a wrong answer, so many have one before it; all about everyday topics, which are few."""
WEIGHTS = {
    "full short other": 14, "full short other-short": 25, "four": 12, "full other": 14, "short other": 18, "short other-full": 6,
    "person": 12, "intent": 10, "urgency": 10, "complete": 8, "padded": 9, "mixed": 4, "spoilt": 3,
}  # fmt: skip


def ranking(rng: Random, asked: Prompt, plan: str) -> list[Answer] | None:
    """Answers to the prompt, best first; None where the plan does not fit the prompt."""
    full = ("full", asked.right(rng, "full"))
    short = ("short", asked.right(rng, "short"))
    for _ in range(8):  # a full answer says clearly more
        if len(full[1]) >= len(short[1]) + 12:
            break
        full, short = ("full", asked.right(rng, "full")), ("short", asked.right(rng, "short"))
    else:
        return None
    some = rng.choice((full, short))
    middle = ("medium", asked.right(rng, "medium"))
    if plan == "full short other":
        return [full, short, other_question(rng, asked, "full", len(full[1]))]
    if plan == "full short other-short":
        return [full, short, other_question(rng, asked, "short", len(short[1]))]
    if plan == "four":
        other = other_question(rng, asked, "short", len(short[1]))
        return [full, short, other, other_question(rng, asked, "full", len(full[1]))]
    if plan == "full other":
        return [full, other_question(rng, asked, "full", len(full[1]))]
    if plan == "short other":
        return [short, other_question(rng, asked, "short", len(short[1]))]
    if plan == "short other-full":
        return [short, other_question(rng, asked, "full")]
    worse = {
        "person": lambda: other_person(rng, asked, some[0], len(some[1])),
        "intent": lambda: other_intent(rng, asked, len(short[1])),
        "urgency": lambda: other_urgency(rng, asked),
        "mixed": lambda: mixed(rng, asked, short[1]),
        "spoilt": lambda: spoilt(rng, some[1]),
    }
    if plan in worse:
        better = some if plan in ("person", "spoilt") else short
        if plan == "urgency" and rng.random() < 0.5:
            better = middle
        last = worse[plan]()
        return [better, last] if last else None
    if plan == "complete":
        return [full, middle, short] if len(short[1]) + 5 < len(middle[1]) < len(full[1]) - 5 else [full, short]
    return [rng.choice((short, middle, short)), ("padded", padded(rng, short[1]))]


def record(rng: Random, more: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """One record and its entry in `facts.json`, which also tells the kind of each answer.

    Args:
        rng: draws the questions and their ranked answers.
        more: draws the worsened answers; apart, so that other ones leave all else as it is.
    """
    while True:
        asked, plan = prompt(rng), draw(rng, WEIGHTS)
        answers = ranking(rng, asked, plan)
        for _ in range(40):  # another prompt for the same plan, so that plans keep their shares
            if answers and len({text for _, text in answers}) == len(answers):
                break
            asked = prompt(rng)
            answers = ranking(rng, asked, plan)
        else:
            continue
        break
    if answers[-1][0].startswith("other") and (asked.topic or more.random() < WORSENED):
        right = sum(kind in doctor.SIZES for kind, _ in answers)
        answers.insert(right, worsened(more, asked, more.choice(answers[:right])[1]))
    row = {"instruction": asked.question, "input": "", "output": [text for _, text in answers]}
    round_ = Round(asked.question, answers[0][1], asked.intent, asked.case, asked.topic)
    fact = entry(asked.history, round_) | {"answers": [kind for kind, _ in answers]}
    return row | ({"history": asked.history} if asked.history else {}), fact
