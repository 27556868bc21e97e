"""Hostile params.yaml files against `stages.check`, which is asked before anything trains.

A case is the committed file with a few values replaced by what a slip, another program or an attacker may put there, or
with its bytes wounded. It must be refused, each problem in one line, or be sound: finite, and a run of a countable
number of steps.
"""

import contextlib
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from hostile_data import SOUND

from stages import check
from stages.parameters import SECTIONS
from stages.preflight import forecast
from stages.preflight import forecast
from stages.runtime import params
from stages.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, -(10**9), 2**32, 2**63, 10**30, 0.0, -0.0, 0.5, 1.0,
    1e-12, 1e-320, 1e6,
    1e308, -1e-3, math.nan, math.inf, -math.inf, "", " ", "x", "1", "1e-4", "nan", "tiny", "none", "null", "x" * 300,
    "x" * 10_000, "../..", "/", "~", "/dev/null", "a\x1b[31mb", "a\nb", "a\u2028b", "\x00", "$(touch x)",
    "; touch x", "病人：",
    [], [[]], {}, [1], ["q_proj"], ["q_proj", 1], ["lm_head"], {"a": 1}, {"r": 1}, [None], {1: 2}, [["x"] * 3] * 3,
]  # fmt: skip
RAW = [
    b"\xff", b"\xfe\xff", b"\x00", b"\t", b"- ", b": ", b"&a ", b"*a", b"<<: *a\n", b"!!python/object:os.system ",
    b"!!int abc",
    b"!!timestamp x", b"2020-99-99", b"[" * 5000, b"{a: " * 2000, b"9" * 6000, b"seed: 1\n", b"...\n", b"--- \n",
    b"%YAML 9.9\n",
    b"\xe2\x80\xa8", b"\xc2\x85", b"#", b"'", b'"', b"|", b">", b"? ", b"\r",
]  # fmt: skip


def prepare(top: Path) -> bytes:
    """A few data below `top`, and the text of sound parameters that name them, with the tiny model."""

    top.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validate", "test"):
        (top / f"{split}_data.json").write_text(json.dumps(SOUND), encoding="utf-8")
    pairs = [{"instruction": f"疼{n}", "input": "", "output": ["休息。", "不知道。"]} for n in range(6)]
    (top / "preferences.json").write_text(json.dumps(pairs), encoding="utf-8")
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["model"]["name"] = "tiny"
    document["data"] |= {"dialogues": str(top), "preferences": str(top / "preferences.json")}
    return yaml.safe_dump(document, allow_unicode=True).encode()


def run(case: int, seed: int, top: Path, sound: bytes) -> str:
    """One case, its file in the folder `top`; the outcome, or an AssertionError that tells what broke."""
    rng = random.Random(f"params {seed}/{case}")
    file = top / "params.yaml"
    file.write_bytes(raw(sound, rng) if rng.random() < 0.3 else changed(sound, rng))
    before = {path.name for path in Path.cwd().iterdir()}
    try:
        problems = list(check.problems(file))
    except UserError as error:  # not even YAML
        problems = [str(error)]
    for line in problems:
        assert line and len(line) < 2000 and line.isprintable(), repr(line)
    assert {path.name for path in Path.cwd().iterdir()} == before, "something was written"
    if problems:
        return "refused"
    sections = {name: params.load(file, name, kind) for name, kind in SECTIONS.items()}
    finite({name: section for name, section in sections.items() if name != "seed"})
    steps = forecast.planned(sections, check.samples(file))
    assert all(0 < count < 10**9 for count in steps.values()), steps
    return "taken"


def changed(sound: bytes, rng: random.Random) -> bytes:
    """The parameters with one to three places replaced, removed or added."""
    document = yaml.safe_load(sound)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        inner: Any = document
        while True:
            key = rng.choice(list(inner))
            if not isinstance(inner[key], dict) or not inner[key] or rng.random() < 0.1:
                break
            inner = inner[key]
        action = rng.random()
        if action < 0.05:
            del inner[key]
        elif action < 0.1:
            inner[rng.choice(["x", 1, "lr", "\x1b[2J", ""])] = rng.choice(VALUES)
        else:
            inner[key] = near(inner[key], rng) if rng.random() < 0.6 else rng.choice(VALUES)
        if not document:
            break
    return yaml.safe_dump(document, allow_unicode=True).encode()


def near(value: Any, rng: random.Random) -> Any:
    """A number's neighbours and multiples, where bounds and combinations lie; another type of the same value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return rng.choice([[value], str(value), value])
    return rng.choice([-value, value + 1, value - 1, 2 * value, value // 2, value * 1000, float(value), str(value)])


def raw(sound: bytes, rng: random.Random) -> bytes:
    content = sound
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        content = content[:place] + rng.choice([*RAW, b""]) + content[place + rng.choice([0, 0, 1, 5, 50]) :]
    return content


def finite(value: Any) -> None:
    """Raise AssertionError when a number in the sections is not finite."""
    if isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, dict):
        for inner in value.values():
            finite(inner)
    elif hasattr(value, "model_dump"):
        finite(value.model_dump())


@contextlib.contextmanager
def workplace(top: Path) -> Any:
    """An empty current folder below `top`, so that a name of a file means none of the checkout's."""
    place = top / "here"
    place.mkdir()
    with contextlib.chdir(place):
        yield place
    shutil.rmtree(place)
