"""What many tests start from: one thread, full parameters, tiny models, and data that is not in every checkout."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parameters import ROOT, write

if TYPE_CHECKING:
    from tiny_models import Folders

# Before anything imports torch: the same sums in the same order in the tests and in the processes that they start.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

pytest_plugins = ["checkouts"]  # its fixtures: finished, clone, repo, smallest

COVID_DIALOGUES = ROOT / "data" / "covid-dialogue"
CHATGLM_VOCABULARY = ROOT / "models" / "chatglm-6b" / "ice_text.model"


@pytest.fixture(scope="session")
def params() -> Callable[..., Path]:
    """`params(folder, {"sft": {"learning_rate": 1.0e-4}})` writes a whole params.yaml there: see `parameters.write`."""
    return write


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """The same into the test's own folder: `params_file({"seed": 1})`."""
    return lambda changes: write(tmp_path, changes)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> "Folders":
    """A tiny base with an sft and a reward adapter, to read only; all tests share them."""
    import tiny_models

    return tiny_models.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for the state of unfinished runs, in place of the checkout's `.work`."""
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / ".work"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path / ".work"


@pytest.fixture(scope="session")
def covid_data() -> Path:
    """The folder of the published COVID dialogues."""
    if not (COVID_DIALOGUES / "train_data.json").is_file():
        pytest.skip(f"{COVID_DIALOGUES} holds no dialogues: `make data` fetches them")
    return COVID_DIALOGUES


@pytest.fixture(scope="session")
def chatglm_vocabulary() -> Path:
    """ChatGLM-6B's own SentencePiece model."""
    if not CHATGLM_VOCABULARY.is_file():
        pytest.skip(f"{CHATGLM_VOCABULARY} is not there: THUDM/chatglm-6b has it")
    return CHATGLM_VOCABULARY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the published data or vocabulary is marked `real` by that alone."""
    for item in items:
        if {"covid_data", "chatglm_vocabulary"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")
