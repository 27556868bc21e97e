"""params.yaml → typed forms: what is missing, unknown or of the wrong type is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml
from stages.score import Score

from stages.base import BaseConfig
from stages.predict import PredictConfig
from stages.rm import RmConfig
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.sft import SftConfig

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Inner:
    r: int
    names: str | tuple[str, ...]

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError("r must be at least 1")


@dataclass(frozen=True)
class Form:
    rate: float
    limit: float | None
    kind: Literal["a", "b"]
    flag: bool
    inner: Inner


GOOD = """
seed: 42
form:
  rate: 1
  limit: null
  kind: a
  flag: true
  inner: {r: 2, names: [x, y]}
"""


def load(folder: Path, text: str) -> Form:
    file = folder / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return params.load(file, "form", Form)


def test_good(tmp_path: Path) -> None:
    form = load(tmp_path, GOOD)
    assert form == Form(1.0, None, "a", True, Inner(2, ("x", "y")))
    assert type(form.rate) is float
    assert params.load(tmp_path / "params.yaml", "seed", int) == 42


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate: 1", "rate: 1e-4", "`form.rate` must be a number, not '1e-4' (YAML reads 1e-4 as text: write 1.0e-4)"),
        ("rate: 1", "rate: true", "`form.rate` must be a number, not True"),
        ("limit: null", "limit: x", "`form.limit` must be a number or null, not 'x'"),
        ("kind: a", "kind: c", "`form.kind` must be one of a, b, not 'c'"),
        ("flag: true", "flag: 1", "`form.flag` must be true or false, not 1"),
        ("  flag: true\n", "", "key `form.flag` is missing"),
        ("flag: true", "flagg: true", "unknown key `form.flagg`; did you mean `form.flag`?"),
        ("flag: true", "flag: true\n  zzzz: 1", "unknown key `form.zzzz`; known keys: rate, limit, kind, flag, inner"),
        ("r: 2", "r: 2.5", "`form.inner.r` must be a whole number, not 2.5"),
        ("r: 2", "r: 0", "`form.inner`: r must be at least 1"),
        ("[x, y]", "[x, 3]", "`form.inner.names` must be a text or a list, each a text, not ['x', 3]"),
        ("{r: 2, names: [x, y]}", "3", "`form.inner` must be a section of keys, not 3"),
        ("form:", "forms:", "section `form` is missing"),
        ("form:", "form: {", "not valid YAML"),
    ],
)
def test_bad(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert message in str(error.value)
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "form", "key", "value"),
    [
        ("base", BaseConfig, "block_size", 0),
        ("sft", SftConfig, "dev_ratio", 1.0),
        ("sft", SftConfig, "dev_ratio", -0.5),
        ("sft", SftConfig, "max_target_length", 0),
        ("sft", SftConfig, "eval_steps", 0),
        ("rm", RmConfig, "max_source_length", -1),
        ("predict", PredictConfig, "batch_size", 0),
        ("predict", PredictConfig, "top_p", 0.0),
        ("score", Score, "batch_size", 0),
    ],
)
def test_the_stages_refuse_what_they_can_not_run(tmp_path, section, form, key, value):
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document[section][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(UserError, match=f"{section}.*{key}"):
        params.load(tmp_path / "params.yaml", section, form)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nope\.yaml: no such parameters file"):
        params.load(tmp_path / "nope.yaml", "seed", int)
