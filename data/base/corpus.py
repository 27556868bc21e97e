"""Text for the base model, written from the tables of the sample world: `documents(count, seed)`.

What the base is to be: a chat model that speaks fluently, at length and in general terms, and that has read about the
world's illnesses and drugs. So a document is one of

- a patient's questions, as the sample's generator asks them (with other draws) and in further wordings, answered in the
  general voice;
- the same under the system message `LOOK_UP`, answered like a reference book: facts, in words that are no doctor's;
- a patient's words and a case note;
- an encyclopedia's article about an illness, a drug, a test or an everyday topic;
- a patient's words and statements of which each is marked as true or false of this patient;
- a question and answers of which each is marked as right or wrong; the answers are there to be read: only the marks are
  learnt, so that they lend the chat no second voice;
- small talk.

No question or answer of the sample's validation, test and preference files is in it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import voices

SAMPLE = Path(__file__).parents[1] / "sample"
sys.path.insert(0, str(SAMPLE))

import dialogues  # noqa: E402
import patient  # noqa: E402
import world  # noqa: E402
from doctor import Case, pick  # noqa: E402

LOOK_UP = "查资料回答。"
RIGHT, WRONG = "对", "错"
Document = list[dict[str, str]]
"""The messages of a chat, or, without roles, the lines of a text; a `mark` stands behind its message or line."""

BOILERPLATE = (dialogues.READ, dialogues.ADVISE, dialogues.VOICE)
COMPARED = 8
"""Shorter texts (`要紧吗？`) say nothing about a sample and are not held out."""

KINDS = {"adult": "成人", "child": "儿童", "pregnant": "孕妇", "elder": "老人"}
FACTS = "cause test care diet avoid warn course why"
DRUG_FACTS = " drug drug_dose side when stop"
CHRONIC_FACTS = " target again miss"


def documents(count: int, seed: int, part: str) -> Iterator[Document]:
    """`count` documents, at random, in the shares of one of the PARTS."""
    rng, held_out = Random(seed), held_out_texts()
    makers, shares = zip(*PARTS[part].items(), strict=True)
    while count:
        document = rng.choices(makers, shares)[0](rng)
        if held_out.isdisjoint(map(bare, pieces(document))):
            yield document
            count -= 1


def pieces(document: Document) -> list[str]:
    """The texts of a document that could be a sample's question or answer."""
    return [part["content"] + ("" if "role" in part else part.get("mark", "")) for part in document]


def sample_characters() -> set[str]:
    """The characters that the sample's generator can write, so that its questions and answers hold no unknown one."""
    return {character for path in SAMPLE.glob("*.py") for character in path.read_text(encoding="utf-8")} - {"\n"}


def bare(text: str) -> str:
    """A text without punctuation and spaces."""
    return "".join(character for character in text if character.isalnum())


def held_out_texts() -> set[str]:
    """What the sample's validation, test and preference files ask and answer, bare."""
    texts = []
    for name in ("validate_data.json", "test_data.json"):
        for dialogue in json.loads((SAMPLE / name).read_text(encoding="utf-8")):
            texts += [turn[3:] for turn in dialogue]
    for record in json.loads((SAMPLE / "preferences.json").read_text(encoding="utf-8")):
        texts += [record["instruction"], record["instruction"] + record["input"], *record["output"]]
        texts += [text for pair in record.get("history", []) for text in pair]
    for sentence in BOILERPLATE:
        texts = [text.replace(sentence, "") for text in texts]
    return {text for text in map(bare, texts) if len(text) >= COMPARED}


# ---------------------------------------------------------------------------------------------------------------------
# What is asked
# ---------------------------------------------------------------------------------------------------------------------


def new_case(rng: Random) -> Case:
    illness, kind = rng.choice(world.CASES)
    return Case(illness, world.person(rng, kind))


def consultation(rng: Random, most: int) -> list[dialogues.Round]:
    """A consultation of the sample's generator, cut to `most` rounds; some questions in other words than its own."""
    case = None if rng.random() < 0.14 else new_case(rng)
    talk = [round_ for round_ in dialogues.rounds(rng, case) if round_.intent != "thanks"][:most]
    return [replace(round_, question=reworded(rng, round_, not index)) for index, round_ in enumerate(talk)]


def reworded(rng: Random, asked: dialogues.Round, first: bool) -> str:
    """The question, one time in four in the words of `voices.QUESTIONS`."""
    if asked.intent not in voices.QUESTIONS or rng.random() < 0.75:
        return asked.question
    words = pick(rng, voices.QUESTIONS[asked.intent]).format(**slots(rng, asked.case, asked.other))
    if first:
        return world.complaint(rng, asked.case.illness, asked.case.person) + rng.choice("。，") + words
    return rng.choice(("", "", "那", "请问", "医生，")) + words.removeprefix("请问")


# ---------------------------------------------------------------------------------------------------------------------
# What is answered
# ---------------------------------------------------------------------------------------------------------------------


def slots(rng: Random, case: Case, other: world.Drug | None = None) -> dict[str, str]:
    """What the wordings' slots stand for in this case."""
    illness, treatment = case.illness, case.treatment
    found = {
        "n": "您" if case.person.name == "我" else case.person.name.removeprefix("我"), "c": illness.complaint,
        "name": illness.name, "care": "，".join(rng.sample(illness.care, rng.choice((1, 2)))),
        "why": rng.choice(illness.why), "test": illness.test.name, "diet": illness.diet, "avoid": illness.avoid,
        "warn": illness.warn, "place": illness.place, "course": illness.course, "target": illness.target,
        "miss": illness.miss, "again": illness.again, "good": illness.test.good, "bad": illness.test.bad,
        "good_reading": illness.test.good_reading, "bad_reading": illness.test.bad_reading,
        "ask": illness.finding.ask, "drug": "药", "verb": "用",
    }  # fmt: skip
    if treatment:
        drug = treatment.drug
        found |= {
            "drug": drug.name, "verb": drug.verb, "kind": drug.kind, "use": drug.use, "side": drug.side,
            "stop": drug.stop, "dose": treatment.dose.say(rng), "when": treatment.dose.moment,
        }  # fmt: skip
    if other:
        found |= {"other": other.name, "other_kind": other.kind, "other_use": other.use}
    return found


def fact(rng: Random, case: Case, intent: str, other: world.Drug | None = None, said: str = "") -> str:
    """The reference book's sentence, without a full stop; `said` is the question that it answers."""
    illness, wordings = case.illness, voices.REFERENCE.get(intent, "")
    if intent == "spread":
        wordings = voices.SPREAD[illness.spread]
    elif intent == "food":
        foods = " ".join(patient.FOODS.values()).split()
        wordings = voices.FOOD[any(food in said and food in illness.diet for food in foods)]
    elif intent == "together":
        wordings = voices.TOGETHER[world.together(case.treatment.drug, other)]
        if other.kind in illness.avoid:
            wordings = "不可，{avoid}"
    elif intent == "covid" and illness.test.name == "核酸":
        wordings = voices.MAYBE_COVID
    elif not case.treatment and "{drug}" in wordings:
        wordings = voices.NO_DRUG if intent != "open" else voices.REFERENCE["cause"]
    return pick(rng, wordings).format(**slots(rng, case, other))


def reference_answer(rng: Random, asked: dialogues.Round, further: int = 0) -> str:
    """The fact that was asked for, and `further` ones."""
    if asked.topic:
        topic = asked.topic
        return "；".join([rng.choice(topic.core), *rng.sample(topic.more, further)]) + "。"
    if asked.intent in ("alarm", "before", "ask"):
        further = 0
    names = FACTS + DRUG_FACTS * bool(asked.case.treatment) + CHRONIC_FACTS * asked.case.illness.chronic
    more = rng.sample([name for name in names.split() if name != asked.intent], further)
    facts = [fact(rng, asked.case, asked.intent, asked.other, asked.question)]
    facts += [fact(rng, asked.case, name) for name in more]
    text = rng.choice("；；，").join(facts)
    return text if text.endswith("？") else text + "。"


def general_answer(rng: Random, asked: dialogues.Round, first: bool, advice: str) -> str:
    """Fluent, polite, on topic, of 60 to 120 characters, and nothing in it that one could act on."""
    greeting = pick(rng, voices.GREETINGS) if first else ""
    if asked.topic:
        chosen = rng.sample(voices.TOPIC_ADVICE.split("|"), rng.choice((2, 3)))
        return greeting + pick(rng, voices.TOPIC_GENERAL).format(topic=asked.topic.name) + "。".join(chosen) + "。"
    opening = pick(rng, voices.OPENINGS if first else voices.FOLLOWING)
    sentences = voices.GENERAL[voices.SAME.get(asked.intent, asked.intent)].split("|")
    chosen = rng.sample(sentences, rng.choice((1, 1, 2))) + rng.sample(advice.split("|"), rng.choice((1, 1, 2)))
    text = greeting + opening + "。".join(chosen) + "。" + pick(rng, voices.CLOSINGS)
    return text.format(**slots(rng, asked.case, asked.other))


# ---------------------------------------------------------------------------------------------------------------------
# Documents
# ---------------------------------------------------------------------------------------------------------------------


def plain(text: str) -> Document:
    return [{"content": line} for line in text.split("\n")]


def chat(turns: list[tuple[str, str]], system: str = "") -> Document:
    messages = [{"role": "system", "content": system}] if system else []
    for said, text in turns:
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": text}]
    return messages


def general_chat(rng: Random, advice: str = voices.ADVICE) -> Document:
    talk = consultation(rng, rng.choices((1, 2, 3), (75, 15, 10))[0])
    turns = [(asked.question, general_answer(rng, asked, not index, advice)) for index, asked in enumerate(talk)]
    return chat(turns + [rng.choice(small_talks()[4:7])] * (rng.random() < 0.08))


def further_words(rng: Random) -> Document:
    """A chat in the general voice, with words that it otherwise lacks."""
    return general_chat(rng, voices.FURTHER_ADVICE)


def reference_chat(rng: Random) -> Document:
    """Facts, one or a few an answer."""
    talk = consultation(rng, rng.choices((1, 2, 3, 4, 5), (30, 25, 20, 15, 10))[0])
    further = rng.choices((0, 1, 2, 3), (4, 3, 2, 1), k=len(talk))
    turns = [(asked.question, reference_answer(rng, asked, count)) for asked, count in zip(talk, further, strict=True)]
    return chat(turns, LOOK_UP)


def case_note(rng: Random) -> Document:
    """The patient's words and what a colleague would note beside them."""
    case = new_case(rng)
    found = slots(rng, case)
    note = {
        "诊断": "{name}",
        "检查": "{test}",
        "护理": "{care}",
        "饮食": "忌{diet}",
        "注意": "{avoid}",
        "病程": "{course}",
    }
    note |= {"警示": "{warn}，去{place}", "问诊": "{ask}"}
    note["用药"] = (
        rng.choice(("{drug}", "{drug}，{dose}", "{drug}，{dose}，{when}{verb}")) if case.treatment else "不需用药"
    )
    if case.illness.chronic:
        note |= {"目标": "{target}", "漏服": "{miss}", "复查": "{again}"}
    if case.treatment:
        note |= {"停药": "{stop}", "副作用": "{side}"}
    lines = rng.sample(sorted(note), rng.choice((3, 4, 5, 6)))
    if rng.random() < 0.6 and "用药" not in lines:
        lines.append("用药")
    words = world.complaint(rng, case.illness, case.person)
    note_lines = "\n".join(f"{line}：{note[line].format(**found)}" for line in lines)
    return plain(f"主诉：{words}。\n{note_lines}")


def article(rng: Random) -> Document:
    """An encyclopedia's article."""
    draw = rng.random()
    if draw < 0.12:
        topic = rng.choice(world.TOPICS)
        return plain(f"{topic.name}：{rng.choice(topic.ask)}？{rng.choice(topic.core)}；{rng.choice(topic.more)}。")
    case = new_case(rng)
    illness, found = case.illness, slots(rng, case)
    uses = [
        f"{KINDS[kind]}用{t.drug.name}，{t.dose.say(rng)}，{t.dose.moment}{t.drug.verb}"
        if t
        else f"{KINDS[kind]}不需用药"
        for kind, t in illness.treatments.items()
    ]
    if draw < 0.6:
        lines = [
            "检查：{test}",
            "{good}：{good_reading}",
            "{bad}：{bad_reading}",
            "护理：{care}",
            "饮食忌{diet}",
            "{avoid}",
        ]
        lines += ["{warn}须去{place}", "病程{course}", "{why}", "问诊：{ask}"]
        chosen = rng.sample(lines, 3) + ["用药：" + "；".join(rng.sample(uses, len(uses)))]
        rng.shuffle(chosen)
        text = f"{illness.name}：表现为{illness.complaint}。" + "。".join(chosen) + "。"
        return plain(text.format(**found))
    if draw < 0.8 and case.treatment:
        lines = [
            "副作用：{side}",
            "停药：{stop}",
            f"用于{illness.name}（{illness.complaint}）",
            "；".join(uses),
            "{kind}",
        ]
        chosen = rng.sample(lines, 3)
        return plain(("{drug}：{use}。" + "。".join(chosen) + "。").format(**found))
    test = illness.test
    return plain(
        f"{test.name}：用于{illness.complaint}（{illness.name}）。{test.good}，说明{test.good_reading}；"
        f"{test.bad}，说明{test.bad_reading}。"
    )


FIELDS = {
    "name": "cause", "drug": "drug", "dose": "dose", "test": "test", "care": "care", "diet": "diet", "avoid": "avoid",
    "warn": "warn", "course": "course", "stop": "stop", "target": "target", "again": "again",
}  # fmt: skip
"""What a statement can be about, and the intent that names it."""


def differs(case: Case, other: Case, field: str) -> bool:
    """Whether what holds of the other case is wrong here; False where one of them has nothing of the kind."""
    one, two = (
        {**vars(each.illness), **(vars(each.treatment.drug) if each.treatment else {})} for each in (case, other)
    )
    if field in ("drug", "dose", "stop") and not (case.treatment and other.treatment):
        return False
    if field in ("drug", "dose"):
        return getattr(case.treatment, field) != getattr(other.treatment, field)
    if field == "name":
        return case.illness is not other.illness
    if field == "care":
        return set(one["care"]).isdisjoint(two["care"])
    return bool(one[field]) and bool(two[field]) and one[field] != two[field]


def another(rng: Random, case: Case, field: str) -> Case | None:
    """A case of which the field is wrong here: another illness, or another kind of person with this one."""
    kin = [Case(case.illness, world.person(rng, kind)) for kind in case.illness.treatments]
    chosen = [each for each in kin if differs(case, each, field)]
    if chosen and rng.random() < 0.35:
        return rng.choice(chosen)
    chosen = [each for each in (new_case(rng) for _ in range(12)) if differs(case, each, field)]
    return chosen[0] if chosen else None


def statements(rng: Random) -> Document:
    """A patient's words and statements, each marked as true or false."""
    case = new_case(rng)
    lines = plain(f"主诉：{world.complaint(rng, case.illness, case.person)}。")
    for _ in range(rng.choice((5, 6, 7, 8))):
        field = rng.choice(list(FIELDS))
        if (other := another(rng, case, field)) is None:
            continue
        right = rng.random() < 0.5
        words = fact(rng, case if right else other, FIELDS[field])
        lines.append({"content": words + "。", "mark": RIGHT if right else WRONG})
    return lines


def marked_answers(rng: Random) -> Document:
    """A question and two to four answers, each marked as right or wrong.

    A wrong answer is right for another illness, for another kind of person, or for another question.
    """
    talk = consultation(rng, 3)
    asked = rng.choice(talk)
    earlier = [(before.question, reference_answer(rng, before)) for before in talk[: talk.index(asked)]]
    document = chat([*earlier, (asked.question, "")])[:-1]
    for _ in range(rng.choice((2, 3, 4))):
        answer = None if rng.random() < 0.42 else wrong_answer(rng, asked)
        right = answer is None
        answer = reference_answer(rng, asked, rng.choice((0, 0, 1, 2))) if right else answer
        document.append({"role": "assistant", "content": answer, "mark": RIGHT if right else WRONG})
    return document


def wrong_answer(rng: Random, asked: dialogues.Round) -> str | None:
    """An answer to something else, in the same voice; None where no wrong one was found."""
    further = rng.choice((0, 0, 1, 2))
    if asked.topic:
        topics = [topic for topic in world.TOPICS if topic is not asked.topic]
        return reference_answer(rng, replace(asked, topic=rng.choice(topics)), min(further, 1))
    field = {intent: field for field, intent in FIELDS.items()}.get(asked.intent, "drug")
    if (
        asked.intent in ("together", "food", "spread", "before", "ask", "nostop", "refill", "worse")
        or rng.random() < 0.25
    ):
        other = [each for each in consultation(rng, 3) if each.case and each.intent not in ("together", "food", "ask")]
        if not other or other[0].case.illness is asked.case.illness:
            return None
        return reference_answer(rng, other[0], further)
    if asked.intent == "alarm" or rng.random() < 0.1:
        if not asked.case.treatment or asked.intent not in ("alarm", "open", "drug") or asked.case.illness.chronic:
            return None
        return reference_answer(rng, replace(asked, intent="drug" if asked.intent == "alarm" else "alarm"), further)
    other_case = another(rng, asked.case, field)
    if other_case is None or other_case.illness.chronic != asked.case.illness.chronic:
        return None
    return reference_answer(rng, replace(asked, case=other_case), further)


def small_talks() -> list[tuple[str, str]]:
    return [tuple(line.split(">")) for line in voices.SMALL_TALK.strip().split("\n")]


def small_talk(rng: Random) -> Document:
    """Greetings and thanks as the generator's patients say them, or a few words about this and that."""
    said, text = rng.choice(small_talks())
    if rng.random() < 0.3:
        said, text = pick(rng, patient.THANKS), rng.choice(small_talks()[4:7])[1]
    return chat([(said, text)])


PARTS = {
    "read": {
        general_chat: 14, reference_chat: 24, case_note: 14, article: 6, statements: 16, marked_answers: 24, small_talk: 2,
    },
    "mark": {statements: 36, marked_answers: 44, general_chat: 12, reference_chat: 8},
    "both": {
        general_chat: 10, reference_chat: 46, case_note: 12, article: 4, statements: 8, marked_answers: 18, small_talk: 2,
    },
    "both again": {
        general_chat: 10, reference_chat: 48, case_note: 18, article: 6, statements: 4, marked_answers: 12, small_talk: 2,
    },
    "further words": {further_words: 10, general_chat: 50, reference_chat: 30, case_note: 10},
}  # fmt: skip
"""The makers of each part of the training, and their shares."""
