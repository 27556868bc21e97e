"""Damaged model and adapter folders against what loads them: refused in one line, or the very same model.

A case is a sound folder of the tiny base, an sft or a reward adapter in which one file is cut, changed, emptied,
swapped, deleted or replaced by a folder.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from hostile_data import wound

from stages.models import base_model, reward, stack
from stages.runtime.errors import UserError

PARTS = ("base", "sft", "rm")


def prepare(top: Path) -> Path:
    """Sound folders below `top`."""
    import tiny_models

    tiny_models.write(top)
    return top


def run(case: int, seed: int, top: Path, sound: Path) -> str:
    """One case in the empty folder `top`; the outcome, or an AssertionError that tells what broke."""
    rng = random.Random(f"folders {seed}/{case}")
    for name in PARTS:
        shutil.copytree(sound / name, top / name)
    damaged = rng.choice(PARTS)
    file = rng.choice(sorted(path for path in (top / damaged).iterdir() if path.is_file()))
    what = damage(file, top, rng)
    try:
        found = weights(top)
    except UserError as error:
        line = str(error)
        assert line and len(line) < 2000 and line.isprintable(), repr(line)
        return "refused"
    except FileNotFoundError as error:
        if not error.filename:  # else the command makes a line of it
            raise
        return "refused"
    assert found == weights(sound), f"{damaged}/{file.name}, {what}: another model, without a word"
    return "taken"


def weights(top: Path) -> list[Any]:
    """What the folders amount to: all weights of the base with both adapters, the head, and a tokenized text."""
    base = base_model.read(top / "base")
    sft, rm = stack.resolve(base, [top / "sft"], "sft"), stack.resolve(base, [top / "rm"], "reward")
    tokenizer = base.tokenizer()
    model = stack.load(base.causal_lm(), [*sft, *rm])
    head = reward.load_head(top / "rm", None)
    scaling = [
        sorted(m.scaling.items()) for m in model.modules() if hasattr(m, "scaling") and isinstance(m.scaling, dict)
    ]
    tensors = [(name, hash(tensor.numpy().tobytes())) for name, tensor in sorted(model.state_dict().items())]
    return [tensors, scaling, head.weight.tolist(), tokenizer.encode("我发烧三天了"), tokenizer.chat_template]


def damage(file: Path, top: Path, rng: random.Random) -> str:
    """Do something to the file; says what."""
    content = file.read_bytes()
    kind = rng.choice(["cut", "byte", "empty", "delete", "folder", "swap", "json", "json", "text", "grow"])
    if kind == "cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "byte":
        place = rng.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "delete":
        file.unlink()
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "swap":
        others = [
            path for name in PARTS for path in (top / name).iterdir() if path.suffix == file.suffix and path != file
        ]
        file.write_bytes(rng.choice(others).read_bytes()) if others else file.unlink()
    elif kind == "json" and file.suffix == ".json" and len(content) < 10_000:
        file.write_text(json.dumps(wound(json.loads(content), rng)), encoding="utf-8")
    elif kind == "text":
        file.write_bytes(content + rng.choice([b"\xff", b"[" * 50_000, b"\x00", b"{}", b"\xed\xa0\x80"]))
    else:
        file.write_bytes(content + content)
    return kind
