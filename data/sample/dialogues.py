"""Dialogues that hang together: every turn is drawn from the state that the earlier turns left.

A question about a drug comes after the doctor named that drug, a test result after the doctor asked for that test; a
doctor who asks back waits for the reply, and a worrying reply ends in "go there at once". `consultation` gives clean
rounds; `with_quirks` writes them down as a consultation site would, with its boilerplate, voice messages and haste.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import doctor
import patient
from doctor import Case
from world import TOPICS, Drug, Illness, Topic, complaint

READ = "感谢您的信任，病情资料我已详细阅读。"
ADVISE = "根据您现有的资料，建议："
VOICE = "医生已经通过语音回答了您的问题，请及时收听。"

CURT, NORMAL, THOROUGH = (0.70, 0.26, 0.04), (0.40, 0.49, 0.11), (0.12, 0.36, 0.52)
"""How often a doctor of each manner gives short, medium and full answers."""

ACUTE = {
    "drug": 12, "dose": 4.5, "side": 1.5, "stop": 1.8, "together": 1.6, "worse": 2.4, "better": 0.8, "cause": 1.8, "test": 5.5,
    "result": 5, "care": 1.8, "diet": 1.2, "food": 1.4, "course": 1.8, "warn": 1.5, "spread": 0.9, "covid": 0.9, "why": 0.6,
}  # fmt: skip
CHRONIC = {
    "dose": 4, "side": 1.5, "refill": 3, "nostop": 1.5, "target": 1.5, "miss": 1.5, "again": 1.5, "test": 3.5, "result": 4,
    "care": 2, "diet": 1.5, "warn": 1.5, "food": 1.2, "together": 1,
}  # fmt: skip
NEEDS_DRUG = {"dose", "side", "stop", "together", "worse", "better", "refill", "nostop", "miss"}
FIRST = {
    "drug": 9,
    "cause": 2.2,
    "test": 4,
    "care": 1,
    "course": 1,
    "covid": 1.6,
    "diet": 0.5,
    "warn": 0.6,
    "spread": 0.4,
}
FIRST_CHRONIC = {
    "refill": 3,
    "dose": 1.5,
    "test": 3,
    "care": 1.5,
    "nostop": 1,
    "diet": 1,
    "target": 1,
    "again": 1,
    "warn": 1,
}


@dataclass(frozen=True)
class Round:
    """One question and its answer; `case` or `topic` says what it is about, for the facts."""

    question: str
    answer: str
    intent: str
    case: Case | None = None
    topic: Topic | None = None
    other: Drug | None = None


@dataclass
class State:
    """What was said so far in a consultation."""

    case: Case
    manner: tuple[float, float, float]
    rounds: list[Round] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    drug_named: bool = False
    test_named: bool = False

    def add(
        self, rng: Random, question: str, intent: str, *, other: Drug | None = None, food: str = "", lead: str = ""
    ) -> None:
        """The doctor answers the question; the state follows from what was said."""
        text = doctor.answer(
            rng, self.case, intent, self.size(rng), other=other, food=food, lead=lead, said=self.said()
        )  # fmt: skip
        self.record(question, text, intent, other)

    def record(self, question: str, text: str, intent: str, other: Drug | None = None) -> None:
        """Keep a round."""
        self.rounds.append(Round(question, text, intent, self.case, other=other))
        self.asked.add(intent)
        treatment, test = self.case.treatment, self.case.illness.test.name
        self.drug_named |= bool(treatment) and treatment.drug.name in question + text
        self.test_named |= test in text and intent not in ("good", "bad")

    def said(self) -> set[str]:
        """The pieces that the doctor need not say again."""
        illness, text = self.case.illness, "".join(round_.answer for round_ in self.rounds)
        dose = self.case.treatment and any(words in text for words in self.case.treatment.dose.amounts)
        told = {"drug": dose, "dose": dose, "warn": illness.warn in text, "diet": illness.diet in text}
        told["course"] = illness.course in text
        return {piece for piece, known in told.items() if known}

    def size(self, rng: Random) -> str:
        """The size of this doctor's next answer."""
        return rng.choices(doctor.SIZES, self.manner)[0]


def draw(rng: Random, weights: Mapping[str, float]) -> str:
    """A key, as often as its weight says."""
    return rng.choices(list(weights), list(weights.values()))[0]


def manner(rng: Random) -> tuple[float, float, float]:
    """How much a doctor says."""
    return rng.choices((CURT, NORMAL, THOROUGH), (0.55, 0.33, 0.12))[0]


def open_intents(state: State) -> dict[str, float]:
    """The follow-up intents that make sense now, with their weights."""
    case, illness = state.case, state.case.illness
    weights = dict(CHRONIC if illness.chronic else ACUTE)
    for intent in state.asked | ({"result"} if state.asked & {"good", "bad"} or not state.test_named else set()):
        weights.pop(intent, None)
    if "open" in state.asked:
        weights.pop("cause", None)
    if state.drug_named:
        weights.pop("drug", None)
    if not case.treatment or not state.drug_named:
        weights = {intent: weight for intent, weight in weights.items() if intent not in NEEDS_DRUG}
    if case.person.kind == "pregnant":
        weights.pop("together", None)
    if state.asked & {"good", "worse", "covid"} or illness.name == "体温波动":
        weights.pop("covid", None)
    if illness.name not in patient.INFECTIOUS_LOOK:
        weights.pop("covid", None)
        if illness.name not in patient.SKIN_LOOK:
            weights.pop("spread", None)
    if state.asked & {"better", "worse"}:
        for intent in ("better", "worse", "stop"):
            weights.pop(intent, None)
    return weights


def follow(rng: Random, state: State) -> bool:
    """One more round; False where nothing is left to ask."""
    weights = open_intents(state)
    if not weights:
        return False
    intent, other, food = draw(rng, weights), None, ""
    if intent == "result":
        good = rng.random() < 0.6
        state.add(rng, patient.result(rng, state.case, good), "good" if good else "bad")
        return good
    if intent == "together":
        other = patient.home_drug(rng, state.case)
    if intent == "food":
        food = patient.food(rng, state.case)
    question = patient.follow_up(rng, state.case, intent, other, food)
    state.add(rng, question, intent, other=other, food=food)
    return True


def after_alarm(rng: Random, state: State) -> None:
    """The patient is sent away; at most one practical question is left."""
    if rng.random() < 0.45:
        intent = rng.choice(("before", "test"))
        if intent == "test" and state.test_named:
            return
        words = patient.question_words(rng, state.case, intent) if intent == "before" else rng.choice(
            ("去了要查什么", "到医院做什么检查", "去了先查哪一项", "医院要做哪个检查")
        )  # fmt: skip
        state.add(rng, rng.choice(("好，", "好的，", "那", "")) + words + "？", intent)


def first_intent(rng: Random, illness: Illness, words: str) -> str:
    """What the patient asks first, fitting to the words of a chronic patient's complaint."""
    if not illness.chronic:
        intent = draw(rng, FIRST)
        looks = patient.INFECTIOUS_LOOK + (patient.SKIN_LOOK if intent == "spread" else [])
        return intent if intent not in ("covid", "spread") or illness.name in looks else "drug"
    if "停药" in words:
        return "nostop"
    if words.endswith(("药没了", "快没了", "用完了", "吃完了", "断了")):
        return rng.choice(("refill", "refill", "dose"))
    return draw(rng, FIRST_CHRONIC)


def consultation(rng: Random, case: Case, turns: int) -> list[Round]:
    """The rounds of one consultation about a case, without quirks."""
    illness, state = case.illness, State(case, manner(rng))
    hello = rng.choice(("你好，", "您好，")) if rng.random() < 0.07 else ""
    words = complaint(rng, illness, case.person)
    kind = rng.choices(("alarm", "ask", "open", "question"), (7, 23, 0 if illness.chronic else 9, 61))[0]
    if kind == "ask":
        state.record(patient.opening(rng, case, "open", words), hello + illness.finding.ask, "ask")
        worrying = rng.random() < 0.3
        said, intent = patient.reply(rng, case, worrying), "alarm" if worrying else "open"
        if not worrying and (illness.chronic or rng.random() < 0.3):
            intent = first_intent(rng, illness, words) if illness.chronic else rng.choice(("drug", "cause", "course"))
            said = said[:-1] + rng.choice("，。") + patient.question_words(rng, case, intent) + "？"
        state.add(rng, said, intent)
    else:
        intent = first_intent(rng, illness, words) if kind == "question" else kind
        state.add(rng, patient.opening(rng, case, intent, words), intent, lead=hello)
    if intent == "alarm":
        if turns > len(state.rounds):
            after_alarm(rng, state)
        return state.rounds
    while len(state.rounds) < turns and follow(rng, state):
        pass
    return state.rounds


def chat(rng: Random, turns: int) -> list[Round]:
    """Everyday questions, one after the other."""
    size, rounds = manner(rng), []
    for index, topic in enumerate(rng.sample(TOPICS, turns)):
        text = doctor.topic_answer(rng, topic, rng.choices(doctor.SIZES, size)[0])
        rounds.append(Round(patient.topic_question(rng, topic, index == 0), text, "topic", topic=topic))
    return rounds


def rounds(rng: Random, case: Case | None) -> list[Round]:
    """The rounds of one dialogue, with thanks at its end now and then.

    Args:
        case: what it is about; everyday questions when None.
    """
    turns = rng.choices((1, 2, 3, 4, 5), (15, 29, 29, 18, 9))[0]
    if case is None:
        talk: list[Round] = chat(rng, min(turns, 3))
    else:
        talk = consultation(rng, case, turns)
        if rng.random() < 0.06 and talk[-1].intent not in ("alarm", "bad", "before", "ask"):
            topic = rng.choice(TOPICS)
            size = rng.choices(doctor.SIZES, NORMAL)[0]
            question = "另外，" + rng.choice(topic.ask) + "？"
            talk.append(Round(question, doctor.topic_answer(rng, topic, size), "topic", topic=topic))
    last = talk[-1]
    if rng.random() < 0.14 and last.intent not in ("alarm", "bad", "before", "ask"):
        said = "".join(round_.answer for round_ in talk)
        talk.append(Round(doctor.pick(rng, patient.THANKS), doctor.welcome(rng, last.case, said), "thanks", last.case))
    return talk


def _haste(rng: Random, text: str) -> str:
    """Half-width punctuation, as people type it."""
    draw_ = rng.random()
    for limit, wide, narrow in ((0.02, "？", "?"), (0.035, "，", ","), (0.042, "。", ".")):
        if draw_ < limit:
            return text.replace(wide, narrow)
    return text


def with_quirks(rng: Random, talk: list[Round]) -> tuple[list[str], list[Round]]:
    """The turns in the file format, and the rounds as they stand there (texts as typed, boilerplate left out).

    Rounds whose answer is nothing but boilerplate have an empty answer.
    """
    out: list[Round] = []
    turns: list[str] = []

    def put(round_: Round, before: str = "", after: str = "") -> None:
        out.append(round_)
        turns.extend((f"病人：{round_.question}", f"医生：{before}{round_.answer}{after}"))

    for index, round_ in enumerate(talk):
        round_ = Round(_haste(rng, round_.question), _haste(rng, round_.answer), *list(vars(round_).values())[2:])
        plain = round_.intent not in ("ask", "alarm", "thanks") and not round_.answer.startswith(
            ("你好", "您好", "建议")
        )
        advice = plain and round_.intent not in (
            "cause",
            "open",
            "covid",
            "course",
            "side",
            "spread",
            "why",
            "good",
            "bad",
        )
        known = round_.topic is not None or (round_.intent in patient.ASK and round_.intent not in ("together", "food"))
        draw_ = rng.random()
        if index == 0 and draw_ < 0.36:
            put(round_, READ + (ADVISE if advice and draw_ < 0.28 else ""))
        elif index == 0 and known and draw_ < 0.39:  # nothing but boilerplate, and the patient asks again
            put(Round(round_.question, "", "empty", round_.case, round_.topic), READ)
            question = patient.again(rng, round_.case, round_.topic, round_.intent, patient.ANYONE)
            put(Round(question, *list(vars(round_).values())[1:]))
        elif known and draw_ > 0.97:  # a voice message, which the patient cannot hear
            put(Round(round_.question, "", "empty", round_.case, round_.topic), VOICE)
            question = patient.again(rng, round_.case, round_.topic, round_.intent, patient.TYPE_PLEASE)
            put(Round(question, *list(vars(round_).values())[1:]))
        elif advice and index and draw_ > 0.93:
            put(round_, ADVISE)
        elif plain and index and draw_ > 0.925 and index == len(talk) - 1:
            put(round_, "", VOICE)
        else:
            put(round_)
    if rng.random() < 0.10 and talk[-1].intent not in ("thanks", "ask"):
        going = talk[-1].intent in ("alarm", "before")
        turns.append("病人：" + doctor.pick(rng, patient.GOING if going else patient.THANKS))
    return turns, out
