"""What the doctor says: an answer is a core that the question asks for, and further facts as far as there is room.

Sizes: `short` is the core, now and then with a small addition; `medium` has one or two further facts; `full` says drug,
dose, advice and warning sign. The wording is drawn, the facts are the illness' and the person's own.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from random import Random

from world import Drug, Illness, Person, Topic, Treatment, together

SIZES = ("short", "medium", "full")
DONE = ("镜", "片", "CT", "核磁", "彩超", "图", "试验", "照相", "监测", "评估", "量表", "镜检", "核酸")
"""A test with such a name is done; the others are looked up in blood or the like."""


@dataclass(frozen=True)
class Case:
    """An illness and the person who has it."""

    illness: Illness
    person: Person

    @property
    def treatment(self) -> Treatment | None:
        """The drug and dose for this person."""
        return self.illness.treatments[self.person.kind]


# Wordings of the pieces, parted by `|`.
CAUSE = (
    "考虑{name}|像是{name}|多半是{name}|应该是{name}|估计是{name}|{name}的可能性大|这是{name}|看着像{name}|"
    "{complaint}，考虑{name}|初步考虑{name}|是{name}引起的|先按{name}看"
)
DRUG = "可以{verb}{drug}|{verb}{drug}|先{verb}{drug}|建议{verb}{drug}|{drug}就行|用{drug}|试试{drug}|{verb}{drug}就可以|选{drug}|首选{drug}"
DRUG_FOR = {
    "child": "给孩子{verb}{drug}|孩子{verb}{drug}|孩子可以{verb}{drug}",
    "pregnant": "孕期可以{verb}{drug}|孕期{verb}{drug}|怀孕可以{verb}{drug}",
    "elder": "老人{verb}{drug}|老人可以{verb}{drug}|给老人{verb}{drug}",
    "adult": "",
}
DRUG_DOSE = "{verb}{drug}，{dose}|{drug}{dose}|可以{verb}{drug}，{dose}|用{drug}，{dose}|{drug}，{dose}"
NO_DRUG = "不用吃药|不需要吃药|先不吃药|这个不用药|没有必要吃药|吃药没有用，不吃"
KEEP = "继续{verb}{drug}|{drug}接着{verb}|还是{verb}{drug}|{drug}不要停|按原来的{verb}{drug}|坚持{verb}{drug}"
KEEP_DOSE = "继续{verb}{drug}，{dose}|{drug}接着{verb}，{dose}|{drug}还是{dose}|{drug}不变，{dose}"
DOSE = "{dose}|{drug}{dose}|{dose_when}|{drug}{dose_when}|{drug}的话，{dose}|按{dose}来"
TEST = (
    "{do}一下{test}|去{do}{test}|{do}个{test}|建议{do}{test}|要{do}{test}|先{do}{test}|去医院{do}个{test}|{do}{test}就够了|"
    "{do}{test}看看|需要{do}{test}|最好{do}{test}|可以{do}{test}"
)
DIET = "不碰{diet}|{diet}不要碰|忌{diet}|{diet}先别碰|别碰{diet}|{diet}要忌口"
WARN = "如果{warn}，就去{place}|{warn}要去{place}|万一{warn}，马上去{place}|一旦{warn}就去{place}|要是{warn}，去{place}"
SIDE = "就是{side}|{side}|一般{side}|主要是{side}|个别人{side}|{drug}就是{side}|{side}，正常的"
NO_SIDE = "没什么副作用|{drug}没什么副作用|没有副作用，放心用|很安全，没什么副作用"
STOP = "{stop}|{drug}{stop}|记住，{stop}|一般{stop}|要看情况，{stop}"
BETTER = "{stop}|那就好，{stop}|好，{stop}|{drug}{stop}|好转了，{drug}{stop}"
WORSE = "没好就{do}{test}|要去{do}{test}|那要{do}{test}再看|去医院{do}{test}，再定药|先{do}{test}，不要自己加药|药先不换，{do}{test}"
URGENT = (
    "马上去急诊|不要等，马上去急诊|这样要马上去急诊|赶紧去急诊|快去急诊，不要在家等|现在就去急诊|这是急症，马上去急诊|"
    "很危险，马上去急诊|不能拖，去急诊"
)
REFER = (
    "这样要去{place}看|先去{place}，不要自己用药|建议去{place}|去{place}看一下，不要拖|到{place}看看再用药|"
    "要去{place}|尽快去{place}|这个要去{place}看|先去{place}"
)
ALARM_MORE = "不要自己吃药|路上要有人陪|去了{do}{test}|带上身份证和口罩|在家吃药不安全|病历带上|别自己开车"
NOT_COVID = (
    "不像新冠，是{name}|不考虑新冠，考虑{name}|不是新冠，像{name}|新冠可能性小，多是{name}|和新冠不一样，是{name}|"
    "{complaint}不像新冠，考虑{name}|别担心，不像新冠，是{name}"
)
MAYBE_COVID = "要做{test}才能排除|先做{test}，阴性就放心|不能排除，去做{test}|做了{test}才知道|做个{test}就能排除"
YES_SPREAD = "会传染，分开吃饭|{name}会传染，戴口罩|会的，东西分开用|会传染给家里人，要分开睡|会传染，自己住一间"
NO_SPREAD = "不传染|{name}不传染|不会传染，放心|不会传给家里人|不传染，正常吃饭就行|{complaint}不会传染"
TOGETHER = "可以，隔开一小时|可以一起用，隔一小时|能，中间隔一小时|可以的，隔一个小时|不冲突，隔一小时"
NOT_TOGETHER = (
    "不能，都是{kind}，{verb}{drug}就行|不要一起，都是{kind}|不能一起，{kind}选{drug}一种|不行，同是{kind}，只{verb}{drug}|"
    "{kind}只用一种，{verb}{drug}"
)
AGAINST = "不行，{avoid}|不能，{avoid}|不可以，{avoid}|不要，{name}{avoid}"
FOOD_NO = "不能，{diet}都别碰|不行，{diet}要忌|先别碰，{diet}都不行|不可以，{diet}会加重"
FOOD_YES = "可以，别过量|能吃，没有关系|可以，少吃点没事|没问题，{diet}别碰就行|可以，只忌{diet}"
REFILL = (
    "网上可以开{drug}|社区医院能开{drug}|一次能开三个月的{drug}|{drug}让家人代开|在网上续{drug}，寄到家|"
    "{drug}药店就能买|可以开{drug}，寄到家里"
)
NO_STOP = "不能停，{drug}要接着{verb}|不能停|{drug}不能停，停了会反复|不可以停，继续{verb}{drug}|不能自己停{drug}|先不停，{verb}着"
TARGET = "目标是{target}|{target}就达标|做到{target}就好|最好{target}|{target}就算好"
MISS = "{miss}|漏了的话，{miss}|没关系，{miss}|{drug}漏了，{miss}"
AGAIN = "{again}|{test}{again}|{again}{do}{test}|{test}要{again}|一般{again}"
READING = "{reading}|看到了，{reading}|嗯，{reading}"
WELCOME = "不客气。|不谢。|不用谢。|好的。|嗯。|不客气，按时{verb}{drug}。|不客气，记得{care}。|不谢，{care}。"
WELCOME_PLAIN = "不客气。|不谢。|不用谢。|好的。|嗯。|不客气，记得{care}。"


def pick(rng: Random, wordings: str) -> str:
    """One of the wordings that `|` parts."""
    return rng.choice(wordings.split("|"))


def course(rng: Random, illness: Illness) -> str:
    """How long it lasts, as a clause."""
    if illness.course.startswith(("要", "到")):
        return illness.course if illness.course[0] == "要" else "要" + illness.course
    if illness.chronic:
        return rng.choice(("要吃", "一般吃", "大概要吃")) + illness.course
    return pick(rng, "一般{}能好|大概{}|{}会好|{}就好|大概要{}").format(illness.course)


def slots(rng: Random, case: Case, **more: str) -> dict[str, str]:
    """The values of every slot for one answer; what is drawn is drawn once."""
    illness, treatment = case.illness, case.treatment
    care = rng.sample(illness.care, 3)
    values = {
        "name": illness.name, "complaint": illness.complaint, "test": illness.test.name, "diet": illness.diet,
        "avoid": illness.avoid, "warn": illness.warn, "place": illness.place, "care": care[0], "care2": care[1],
        "care3": care[2], "why": rng.choice(illness.why), "cause": illness.why[0], "relapse": illness.why[1], "target": illness.target, "miss": illness.miss,
        "again": illness.again, "course": course(rng, illness), "do": "做" if illness.test.name.endswith(DONE) else "查",
    }  # fmt: skip
    if treatment:
        drug, dose = treatment.drug, treatment.dose
        values |= {
            "drug": drug.name, "verb": drug.verb, "side": drug.side, "stop": drug.stop, "kind": drug.kind,
            "dose": dose.say(rng), "dose_when": dose.say(rng, drug.verb, when=True),
        }  # fmt: skip
    return values | more


def _drug(rng: Random, case: Case, with_dose: bool) -> str:
    if not case.treatment:
        return pick(rng, NO_DRUG)
    if case.illness.chronic:
        return pick(rng, KEEP_DOSE if with_dose else KEEP)
    if with_dose:
        return (
            pick(rng, DRUG_DOSE) if rng.random() < 0.7 else pick(rng, DRUG_FOR[case.person.kind] or DRUG) + "，{dose}"
        )
    own = DRUG_FOR[case.person.kind]
    return pick(rng, own if own and rng.random() < 0.5 else DRUG)


def core(rng: Random, case: Case, intent: str, other: Drug | None = None, food: str = "") -> str:
    """The template of the part that the question asks for.

    Args:
        intent: one of the keys of `patient.ASK`, or `alarm` (a worrying finding was reported) and `open`.
        other: the second drug of a question about two drugs.
        food: what the patient asks to eat or drink.
    """
    illness = case.illness
    side = case.treatment.drug.side if case.treatment else ""
    if intent == "drug":
        return _drug(rng, case, with_dose=rng.random() < 0.25)
    if intent == "alarm":
        return pick(rng, URGENT if illness.place == "急诊" else REFER)
    if intent == "together":
        if not together(case.treatment.drug, other):
            return pick(rng, NOT_TOGETHER)
        return pick(rng, AGAINST if other.kind in illness.avoid else TOGETHER)
    if intent == "food":
        return pick(rng, FOOD_NO if food in illness.diet else FOOD_YES)
    if intent == "covid":
        return pick(rng, MAYBE_COVID if illness.test.name == "核酸" else NOT_COVID)
    if intent == "open":
        return pick(rng, CAUSE) + "，" + _drug(rng, case, with_dose=False)
    if intent == "care":
        return rng.choice(("{care}", "{care}，{care2}", "{care}，{avoid}", "平时{care}", "注意{care}，{care2}"))
    simple = {
        "cause": CAUSE, "dose": DOSE, "test": TEST, "diet": DIET, "warn": WARN, "stop": STOP, "better": BETTER,
        "side": NO_SIDE if side.startswith("没什么") else SIDE, "worse": WORSE, "course": "{course}", "why": "{cause}",
        "spread": YES_SPREAD if illness.spread else NO_SPREAD, "refill": REFILL, "nostop": NO_STOP, "target": TARGET,
        "miss": MISS, "again": AGAIN, "good": READING, "bad": READING, "avoid": "{avoid}",
        "before": "先不要吃药，去了再说|不要自己吃药，去了听医生的|先不吃，怕盖住病情",
    }  # fmt: skip
    return pick(rng, simple[intent])


# What may follow a core, most fitting first; `full` answers take from FULL too.
FURTHER = {
    "drug": ("dose", "care", "warn", "avoid", "stop"),
    "open": ("dose", "care", "warn", "diet"),
    "cause": ("drug", "care", "course", "why"),
    "test": ("care", "why", "warn", "cause"),
    "dose": ("stop", "care", "avoid", "side"),
    "care": ("diet", "warn", "course", "drug"),
    "diet": ("care", "avoid", "drug"),
    "course": ("care", "drug", "warn"),
    "warn": ("care", "avoid", "course"),
    "covid": ("drug", "care", "why"),
    "worse": ("care", "warn"),
    "better": ("care", "diet"),
    "side": ("stop", "avoid"),
    "stop": ("care", "warn"),
    "together": ("avoid", "care"),
    "food": ("care", "avoid"),
    "spread": ("care", "course"),
    "why": ("care", "drug"),
    "refill": ("drug", "care"),
    "nostop": ("relapse", "care", "test"),
    "target": ("care", "diet"),
    "miss": ("drug", "care"),
    "again": ("care", "drug"),
    "good": ("care", "drug"),
    "bad": (),
    "avoid": ("care", "diet"),
    "before": (),
}
FULL = ("drug", "care", "diet", "warn", "course")


def _clause(rng: Random, case: Case, piece: str, said: str) -> str:
    """The template of one further fact; nothing where it was said already."""
    drug = "{drug}" in said
    if piece == "dose":
        return "" if not case.treatment or "{dose" in said else "{dose}"
    if piece == "drug":
        if not case.treatment:
            return "" if "药" in said else pick(rng, NO_DRUG)
        return "" if drug else _drug(rng, case, with_dose=True)
    if piece == "care":
        left = [slot for slot in ("{care}", "{care2}", "{care3}") if slot not in said]
        return "，".join(left[: rng.choice((1, 2))])
    if piece in ("stop", "side") and (not case.treatment or "{stop}" in said):
        return ""
    if piece == "course" and ("{stop}" in said or case.illness.chronic):
        return ""
    words = {
        "stop": "{stop}",
        "side": "{side}",
        "avoid": "{avoid}",
        "why": "{why}",
        "course": "{course}",
        "relapse": "{relapse}",
    }
    text = words[piece] if piece in words else core(rng, case, piece)
    slot = {"diet": "{diet}", "warn": "{warn}", "test": "{test}", "cause": "{name}"}.get(piece, text)
    return "" if slot in said else text


def answer(
    rng: Random, case: Case, intent: str, size: str, *, other: Drug | None = None, food: str = "", lead: str = "",
    said: Container[str] = (),
) -> str:  # fmt: skip
    """The doctor's answer to a question of this intent.

    Args:
        intent: see `core`; `good` and `bad` read a reported test result.
        size: one of SIZES.
        other, food: see `core`.
        lead: a word before the answer, such as a greeting.
        said: pieces that need not be said again.
    """
    reading = {"good": case.illness.test.good_reading, "bad": case.illness.test.bad_reading}.get(intent, "")
    sentences = [core(rng, case, intent, other, food)]
    if intent == "alarm":
        extras = [line for line in ALARM_MORE.split("|") if "自己" not in line or "自己" not in sentences[0]]
        more = rng.sample(extras, {"short": int(rng.random() < 0.3), "medium": 1, "full": 3}[size])
        sentences += more
    else:
        pieces: Sequence[str] = FURTHER[intent]
        if size == "short":
            short = [piece for piece in pieces if piece in ("care", "stop", "avoid")]
            pieces = [rng.choice(short)] if short and rng.random() < 0.42 else []
        elif size == "medium":
            pieces = sorted(rng.sample(pieces[:3], min(len(pieces), rng.choice((1, 1, 2)))), key=pieces.index)
        else:
            pieces = [*pieces[:1], *(piece for piece in FULL if piece not in pieces[:1])] if pieces else []
            if intent in ("dose", "side", "stop", "better", "worse", "together"):  # the drug is known to both
                pieces = [piece for piece in pieces if piece != "drug"]
            if rng.random() < 0.5:
                pieces = [piece for piece in pieces if piece != "course"]
            if rng.random() < 0.4:
                pieces = [piece for piece in pieces if piece != "diet"]
        for piece in pieces:
            if piece in said:
                continue
            clause = _clause(rng, case, piece, "。".join(sentences))
            if size == "short" and "，" in clause:
                clause = clause.split("，")[0]
            if clause:
                sentences.append(clause)
    text = sentences[0]
    for sentence in sentences[1:]:
        near = 1.0 if size == "short" or sentence == "{dose}" else 0.25
        text += ("，" if rng.random() < near else "。") + sentence
    return lead + text.format(**slots(rng, case, reading=reading)) + "。"


def topic_answer(rng: Random, topic: Topic, size: str) -> str:
    """The answer to an everyday question."""
    count = {"short": int(rng.random() < 0.45), "medium": 1 + int(rng.random() < 0.5), "full": 4}[size]
    parts = [rng.choice(topic.core), *rng.sample(topic.more, count)]
    text = parts[0]
    for part in parts[1:]:
        text += ("，" if size == "short" or rng.random() < 0.5 else "。") + part
    return text + "。"


def welcome(rng: Random, case: Case | None, said: str) -> str:
    """The reply to thanks; most are too short to become a sample.

    Args:
        case: what the dialogue was about; None for everyday questions.
        said: all that the doctor said before, so that no new drug comes up.
    """
    if case is None:
        return pick(rng, WELCOME_PLAIN.removesuffix("|不客气，记得{care}。"))
    known = case.treatment and case.treatment.drug.name in said
    return pick(rng, WELCOME if known else WELCOME_PLAIN).format(**slots(rng, case))
