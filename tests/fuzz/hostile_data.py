"""Hostile data files against `preprocess` and the import.

A case is a valid file of some format with a few random wounds. It must end in one of two ways: what was written can
be read by the next stage, or one line says what is wrong and nothing was written. A traceback, a second line, half a
result or more than ten seconds is a failure; the file that caused it is printed.
"""

import contextlib
import csv
import io
import json
import math
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stages import import_data, preprocess
from stages.text import records

ROOT = Path(__file__).parents[2]
SECONDS = 10
SOUND = [[f"病人：第{i}天，怎么办？", f"医生：多喝水，休息{i}天。"] for i in range(5)]
TEXTS = [
    "我发烧三天了", "多喝水，好好休息。", "", " ", "a\u2028b", "\u2029", "x\u0085y", "🤒", "\x00", "\x1b[31m", "\ufeff",
    "病人：", "医生：", "<|im_end|>", "疼" * 500, "根据您现有的资料，建议：", "=1+1", '"', "\\", "\r\n", "\t",
]  # fmt: skip
JUNK = [
    None, True, 0, -1, 10**30, 1.5, "", "x", [], {}, [[]], [{}], {"a": None}, [None], [["a", "b"]], math.nan, "\ud800",
]  # fmt: skip
KEYS = ["chosen", "messages", "label", "images", "tools", "system", "prompt", "role"]
RAW = [
    b"[" * 100_000, b'{"a":' * 50_000, b"9" * 6000, b"\xff", b"\xed\xa0\x80", b"\x00", b"NaN", b"\xe2\x80\xa8",
    b"\xc2\x85", b"//",
    b"\n", b"\r", b",", b"]", b"}", b'"', b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"1e999", b'{"a":1,"a":2}', b"#",
]  # fmt: skip


def text(rng: random.Random) -> str:
    return f"{rng.choice(TEXTS[:2])}{rng.random():.3f}" if rng.random() < 0.8 else rng.choice(TEXTS)


def messages(rng: random.Random, role: str = "role", content: str = "content", last: bool = True) -> list[Any]:
    names = {"role": ("user", "assistant", "system"), "from": ("human", "gpt", "system")}[role]
    turns = [(names[i % 2], text(rng)) for i in range(2 * rng.randint(1, 3) - (not last))]
    return ([{role: names[2], content: "s"}] if rng.random() < 0.2 else []) + [{role: n, content: t} for n, t in turns]


def covid(rng: random.Random) -> list[str]:
    return [("病人：", "医生：")[i % 2] + text(rng) for i in range(rng.randint(0, 7))]


def alpaca(rng: random.Random) -> dict[str, Any]:
    return {"instruction": text(rng), "input": text(rng), "output": text(rng), "history": [[text(rng), text(rng)]]}


def ranking(rng: random.Random) -> dict[str, Any]:
    return {"instruction": text(rng), "input": "", "output": [text(rng) for _ in range(rng.randint(2, 4))]}


DIALOGUES = [
    lambda r: {"messages": messages(r)},
    lambda r: {"conversations": messages(r, "from", "value")},
    alpaca,
    lambda r: {"prompt": text(r), "completion": text(r)},
    covid,
]
PREFERENCES = [
    ranking,
    lambda r: {"prompt": text(r), "chosen": text(r), "rejected": text(r)},
    lambda r: {"prompt": messages(r, last=False), "chosen": messages(r)[-1:], "rejected": messages(r)[-1:]},
    lambda r: {"instruction": text(r), "input": "", "chosen": text(r), "rejected": text(r)},
    lambda r: {"conversations": messages(r, "from", "value", last=False), "chosen": {"from": "gpt", "value": text(r)},
               "rejected": {"from": "gpt", "value": text(r)}},
]  # fmt: skip


def wound(value: Any, rng: random.Random) -> Any:
    """The value with one node replaced, removed, doubled or renamed."""
    if isinstance(value, list) and value and rng.random() < 0.8:
        place, copy = rng.randrange(len(value)), list(value)
        action = rng.random()
        if action < 0.1:
            del copy[place]
        elif action < 0.2:
            copy.insert(place, rng.choice([*copy, *JUNK]))
        else:
            copy[place] = wound(copy[place], rng)
        return copy
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key, changed = rng.choice(list(value)), dict(value)
        action = rng.random()
        if action < 0.15:
            del changed[key]
        elif action < 0.25:
            changed[rng.choice(KEYS)] = rng.choice(JUNK)
        else:
            changed[key] = wound(changed[key], rng)
        return changed
    return rng.choice([*JUNK, *TEXTS])


def file(rng: random.Random, forms: list[Any], own: int) -> tuple[str, bytes]:
    """A name and the content of a hostile file; often in the project's own format, forms[own]."""
    form = forms[own] if rng.random() < 0.5 else rng.choice(forms)
    rows = [form(rng) for _ in range(rng.randint(0, 3) if rng.random() < 0.1 else rng.randint(4, 9))]
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2])):
        rows = wound(rows, rng)
    lines = isinstance(rows, list) and rng.random() < 0.5
    escaped = rng.random() < 0.5
    dump = lambda value: json.dumps(value, ensure_ascii=escaped)  # noqa: E731
    content = ("\n".join(map(dump, rows)) if lines else dump(rows)).encode("utf-8", "surrogatepass")
    for _ in range(rng.choice([0, 0, 0, 0, 0, 0, 1, 3])):
        place = rng.randrange(len(content) + 1)
        cut = rng.choice([0, 0, 1, 1, 5, 10**9])
        content = content[:place] + rng.choice([*RAW, b"", b""]) + content[place + cut :]
    if rng.random() < 0.03:
        content = content.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-8-sig", "gb18030"]), "replace")
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) and rng.random() < 0.2:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), extrasaction="ignore", escapechar=rng.choice([None, "\\"]))
        with contextlib.suppress(csv.Error):
            writer.writeheader()
            writer.writerows(rows)
        return "x.csv", table.getvalue().encode("utf-8", "surrogatepass")
    return rng.choice(["x.json", "x.jsonl", "x.json", "x", "x.csv" if rng.random() < 0.1 else "x"]), content


class NoEnd(BaseException):
    """A case took too long; no handler takes it for an error of its own."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def expire(*_: Any) -> None:
        raise NoEnd(f"no end within {SECONDS} s of computing")

    # By the processor's time: on a busy machine a case may wait long for its turn. What waits for ever ends, too.
    limits = [(signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, 12 * SECONDS)]
    before = [signal.signal(number, expire) for _, number, _ in limits]
    for timer, _, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def run(case: int, seed: int, top: Path) -> str:
    """One case in the empty folder `top`; the outcome, or an AssertionError that tells what broke."""
    rng = random.Random(f"{seed}/{case}")
    importing = rng.random() < 0.5
    name, content = file(rng, DIALOGUES, 4)
    pairs_name, pairs = file(rng, PREFERENCES, 0)
    out, error = io.StringIO(), io.StringIO()
    code = 0
    try:
        with alarm(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            if importing:
                (top / name).write_bytes(content)
                (top / f"pairs-{pairs_name}").write_bytes(pairs)
                import_data.main(str(top / name), str(top / f"pairs-{pairs_name}") if rng.random() < 0.5 else None,
                                 "fuzz", data=top / "data", profiles=top)  # fmt: skip
            else:
                for split in ("train", "validate", "test"):
                    (top / f"{split}_data.json").write_text(json.dumps(SOUND), encoding="utf-8")
                if rng.random() < 0.5:
                    (top / "train_data.json").write_bytes(content)
                (top / "pairs.json").write_bytes(pairs)
                preprocess_files(top, top / "pairs.json")
    except SystemExit as end:
        code = end.code
    if code:
        line = error.getvalue()
        assert line.startswith("error: ") and line.count("\n") == 1 and len(line) < 1000, repr(line)
        assert not any(ord(c) < 32 for c in line.rstrip("\n")), repr(line)
        assert not (top / "data").exists() and not (top / "out").exists(), "something is half-written"
        return "refused"
    assert not error.getvalue(), error.getvalue()
    if importing:
        preprocess_imported(top)
    for split in ("train", "validate", "test"):
        assert records.read_samples(top / "out" / f"{split}.jsonl")
    return "imported" if importing else "taken"


def preprocess_files(folder: Path, preferences: Path, **data: Any) -> None:
    """Run the stage on these files, with the default rules or others."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["data"] |= {"dialogues": str(folder), "preferences": str(preferences), **data}
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(document), encoding="utf-8")
    preprocess.main(folder / "out", folder / "log", params)


def preprocess_imported(top: Path) -> None:
    """What was imported must be what `preprocess` takes."""
    folder = top / "data" / "fuzz"
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess_files(folder, folder / "preferences.json", boilerplate=[], min_answer_length=1)
    shutil.copytree(folder / "out", top / "out")
