"""The sample world: illnesses, drugs, persons and everyday topics, and what follows from what.

Everything is invented for a language model to learn and is NOT medical advice. The mapping is deterministic: illness
and kind of person decide drug and dose; the illness decides test, advice, warning sign and duration; a worrying finding
decides "go there at once" instead of a drug. Wording varies, facts do not.

The tables are text (`illnesses.py`, `chronic.py`, `drugs.py`, `topics.py`); this module parses them into frozen
dataclasses and answers questions about them:

    ILLNESSES, DRUGS, TOPICS, TESTS        the tables
    illness.treatments[kind]               Treatment(drug, dose), or None where no drug is needed
    dose.say(rng), dose.amounts, dose.times
    person(rng, kind)                      who is ill, drawn at random
    complaint(rng, illness, who)           the patient's own words
    together(one, other)                   may two drugs be taken at the same time of life
"""

from dataclasses import dataclass
from functools import cached_property
from random import Random

from chronic import CHRONIC_TABLE
from drugs import DRUG_TABLE
from illnesses import ILLNESS_TABLE
from topics import TOPIC_TABLE

KINDS = ("adult", "child", "pregnant", "elder")


@dataclass(frozen=True)
class Drug:
    """A drug; `kind` is its class, `side` the usual side effect, `stop` when to stop taking it."""

    name: str
    verb: str
    kind: str
    use: str
    side: str
    stop: str


@dataclass(frozen=True)
class Dose:
    """How much (`一袋`), how often (`一天三次`) and when (`饭后`)."""

    amount: str
    often: str
    when: str

    @property
    def amounts(self) -> tuple[str, str]:
        """Every wording of the amount."""
        return f"一次{self.amount}", f"每次{self.amount}"

    @property
    def times(self) -> tuple[str, ...]:
        """Every wording of how often."""
        for unit, others in (("一天", "每天 一日"), ("一周", "每周"), ("三天", "每三天")):
            if self.often.startswith(unit):
                rest = self.often.removeprefix(unit)
                return (self.often, *(other + rest for other in others.split()))
        raise ValueError(self.often)

    @property
    def moment(self) -> str:
        """When, as it stands before a verb."""
        after = self.when in ("洗净", "摇匀", "拉完", "洗手", "擤完鼻涕")
        return self.when + "后" if after else self.when

    def say(self, rng: Random, verb: str = "", when: bool = False) -> str:
        """The dose in words; with `when`, the moment too (`饭后吃`)."""
        parts = [rng.choice(self.amounts), rng.choice(self.times)]
        if rng.random() < 0.4:
            parts.reverse()
        return "，".join(parts) + (f"，{self.moment}{verb}" if when else "")


@dataclass(frozen=True)
class Treatment:
    """The one drug for a kind of person, with that person's dose."""

    drug: Drug
    dose: Dose


@dataclass(frozen=True)
class Finding:
    """The doctor's question back with a harmless and a worrying reply."""

    ask: str
    harmless: str
    worrying: str


@dataclass(frozen=True)
class Test:
    """The one examination; a result is what the patient reports, with the doctor's reading of it."""

    name: str
    good: str
    good_reading: str
    bad: str
    bad_reading: str


@dataclass(frozen=True)
class Illness:
    """One block of the tables; `chronic` illnesses have `target`, `miss` and `again` too."""

    name: str
    complaint: str
    say: tuple[str, ...]
    sign: tuple[str, ...]
    finding: Finding
    why: tuple[str, ...]
    treatments: dict[str, Treatment | None]
    test: Test
    care: tuple[str, ...]
    diet: str
    avoid: str
    warn: str
    place: str
    course: str
    spread: bool
    target: str = ""
    miss: str = ""
    again: str = ""

    @property
    def chronic(self) -> bool:
        """Whether the patient has known the illness and its drug for years."""
        return bool(self.target)

    @cached_property
    def text(self) -> str:
        """All strings of the row, to look up what the row itself names."""
        return " ".join(
            [*self.care, *self.why, *self.sign, self.diet, self.avoid, self.target, *vars(self.test).values()]
        )


@dataclass(frozen=True)
class Topic:
    """An everyday question: every wording of `core` holds the string `fact`."""

    name: str
    fact: str
    ask: tuple[str, ...]
    core: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True)
class Person:
    """Who is ill: `kind` is one of KINDS, `words` begins the patient's sentence, `name` is what they are called later."""

    kind: str
    words: str
    name: str


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split("/"))


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(">")]


def _blocks(table: str) -> list[tuple[str, str, dict[str, str]]]:
    """The blocks of a table: both parts of the head and the lines by their first word."""
    blocks = []
    for block in table.strip().split("\n\n"):
        head, *lines = block.split("\n")
        name, second = (part.strip() for part in head.removeprefix("# ").split("|"))
        blocks.append((name, second, dict(line.split(" ", 1) for line in lines)))
    return blocks


def _treatment(line: str) -> Treatment | None:
    if line == "-":
        return None
    name, dose = _pieces(line)
    return Treatment(DRUGS[name], Dose(dose.split("，")[0].removeprefix("一次"), *dose.split("，")[1:]))


def _illness(name: str, complaint_: str, lines: dict[str, str]) -> Illness:
    warn, place = _pieces(lines["warn"])
    optional = {key: lines[key] for key in ("target", "miss", "again") if key in lines}
    return Illness(
        name, complaint_, _items(lines["say"]), _items(lines["sign"]), Finding(*_pieces(lines["ask"])),
        _items(lines["why"]), {kind: _treatment(lines[kind]) for kind in KINDS if kind in lines},
        Test(*_pieces(lines["test"])), _items(lines["care"]), lines["diet"], lines["avoid"], warn, place,
        lines["course"], lines["spread"] == "yes", **optional,
    )  # fmt: skip


DRUGS = {
    row[0]: Drug(*row)
    for row in ([cell.strip() for cell in line.split("|")] for line in DRUG_TABLE.strip().split("\n"))
}
ILLNESSES = tuple(_illness(*block) for block in _blocks(ILLNESS_TABLE) + _blocks(CHRONIC_TABLE))
TOPICS = tuple(
    Topic(name, fact, _items(lines["ask"]), _items(lines["core"]), _items(lines["more"]))
    for name, fact, lines in _blocks(TOPIC_TABLE)
)
TESTS = tuple(dict.fromkeys(illness.test.name for illness in ILLNESSES))
"""The names of all tests, each once."""

CASES = tuple((illness, kind) for illness in ILLNESSES for kind in illness.treatments)
"""All (illness, kind of person) that the world knows."""

DAYS = ["两天", "三天", "四天", "五天", "六天", "一周", "八天", "十天", "半个月"]
YEARS = ["两", "三", "五", "六", "八", "十"]
AGES = {
    "child": ["一岁半", "两岁", "三岁", "三岁半", "四岁", "五岁", "六岁", "七岁", "八岁", "九岁"],
    "elder": ["六十八岁", "七十岁", "七十二岁", "七十五岁", "七十八岁", "八十岁", "八十三岁"],
}
WEEKS = ["十", "十二", "十六", "十八", "二十", "二十二", "二十四", "二十六", "二十八", "三十"]
ADULTS = ["", "", "我", "我", "我老公", "我老婆", "我姐姐", "我弟弟", "我同事", "我朋友"]
CHILDREN = ["孩子", "女儿", "儿子", "小孩", "侄子", "外孙"]
ELDERS = ["我妈妈", "我爸爸", "奶奶", "爷爷", "外公", "外婆", "我婆婆"]


def person(rng: Random, kind: str) -> Person:
    """Who is ill, in random but fitting words."""
    if kind == "child":
        name, age = rng.choice(CHILDREN), rng.choice(AGES["child"])
        return Person(kind, rng.choice((f"{name}{age}，", f"我家{name}{age}，", f"{name}今年{age}，")), name)
    if kind == "pregnant":
        week = rng.choice(WEEKS)
        words = rng.choice(
            (f"怀孕{week}周，", f"我怀孕{week}周，", f"孕{week}周，", f"我老婆怀孕{week}周，", f"现在怀孕{week}周，")
        )
        return Person(kind, words, "我老婆" if "老婆" in words else "我")
    if kind == "elder":
        name = rng.choice(ELDERS)
        return Person(kind, f"{name}{rng.choice(AGES['elder'])}，", name)
    name = rng.choice(ADULTS)
    return Person(kind, name, name or "我")


def complaint(rng: Random, illness: Illness, who: Person) -> str:
    """The patient's own words: the person, one wording of the complaint, without a full stop."""
    treatment = illness.treatments[who.kind]
    return who.words + rng.choice(illness.say).format(
        d=rng.choice(durations(illness)),
        y=rng.choice(YEARS),
        m=treatment.drug.name if treatment else "",
    )


def durations(illness: Illness) -> list[str]:
    """How long patients have had it when they ask: not longer than it lasts."""
    if illness.course in ("一两天", "两三天", "三天左右", "三五天", "三到五天"):
        return DAYS[:3]
    return DAYS[:5] if "天" in illness.course or illness.course.startswith("一周") else DAYS


def together(one: Drug, other: Drug) -> bool:
    """Whether two drugs may be taken beside each other: never two of one class."""
    return one.kind != other.kind
