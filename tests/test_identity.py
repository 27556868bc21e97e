"""What tells one local base model from another: the files that a loader reads, and no others."""

from pathlib import Path

import pytest

from stages.models import base_model
from stages.models.base_model import ModelConfig
from stages.runtime.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def identity(model: Path, **more: object) -> str:
    base = model.parent / "base"
    base.mkdir(exist_ok=True)
    base_model.write_pointer(base, ModelConfig(name=str(model), **more))
    return base_model.read(base).identity


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "curve.csv", "train.py", "notes.txt", ".gitattributes"])
def test_a_note_beside_the_model_changes_nothing(model: Path, name: str) -> None:
    before = identity(model)
    recorded = base_model.read(model.parent / "base")
    (model / name).write_text("a word about it")
    recorded._check_files()  # an adapter's stage still takes it for the same model
    assert identity(model) == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "merges.txt", "spiece.model",
     "chat_template.jinja", "generation_config.json"],
)  # fmt: skip
def test_what_a_loader_reads_is_another_model(model: Path, name: str) -> None:
    before = identity(model)
    recorded = base_model.read(model.parent / "base")
    (model / name).write_bytes(b"another content")
    with pytest.raises(UserError, match="its files are not those that"):
        recorded._check_files()
    assert identity(model) != before


def test_its_own_code_counts_where_it_may_run(model: Path) -> None:
    trusting = {"trust_remote_code": True, "revision": COMMIT}
    before, trusted = identity(model), identity(model, **trusting)
    (model / "modeling.py").write_text("print()")
    assert identity(model) == before
    assert identity(model, **trusting) != trusted


def test_equal_sizes_are_not_equal_files(model: Path) -> None:
    before = identity(model)
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert identity(model) != before
