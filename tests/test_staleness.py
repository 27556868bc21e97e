"""Which stages run again after a change of a parameter or an edit of a file, and that no other does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import parameters
import pytest
import yaml
from checkouts import at_work_in, run
from imports import ROOT
from test_graph import MODULES
from test_rooms import MAY_IMPORT

# DVC's own dependencies; none of it is for this project to repair.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")]

NONE: set[str] = set()
ALL = set(MODULES)
MODELS = ALL - {"preprocess"}
ANSWERS = {"predict@base", "predict@sft", "predict@ppo", "evaluate", "report"}
POLICY = {"ppo", "predict@ppo", "evaluate", "report"}
PREFERENCES = POLICY | {"rm"}  # what rests on the preference pairs

# After a change of this parameter, or of one below it, these stages run again and no other.
AFTER_A_PARAMETER = {
    "seed": MODELS,
    "model": MODELS,
    "data.dialogues": ALL,
    "data.preferences": {"preprocess", *PREFERENCES},  # the dialogue samples come out the same
    "data.preferences_validate_ratio": {"preprocess", *PREFERENCES},
    "data.seed": {"preprocess", "sft", "predict@sft", *PREFERENCES},  # the test samples and the base's stay
    "data.patient_prefix": ALL,
    "data.doctor_prefix": ALL,
    "data.boilerplate": ALL,
    "data.min_answer_length": ALL,
    "base": MODELS,
    "sft": {"sft", "predict@sft", *POLICY},
    "rm": PREFERENCES,
    "ppo": POLICY,
    "predict": ANSWERS,
    "evaluate": {"evaluate", "report"},
    "report": {"report"},
}

# After an edit of a file there, these stages run again and no other.
AFTER_AN_EDIT = {
    "stages/runtime": ALL,
    "stages/text": ALL,
    "stages/importing": {"preprocess"},
    "stages/models": MODELS,
    "stages/training": MODELS,
    "stages/preference": PREFERENCES,
    "stages/generation": ANSWERS | {"ppo"},
    "stages/rl": POLICY,
    "stages/metrics": {"evaluate", "report"},
    "stages/scoring": {"evaluate", "report"},
    "stages/page": {"report"},
    "stages/serving": NONE,
    "stages/preflight": NONE,
    "stages/preprocess.py": {"preprocess"},  # the samples come out the same
    "stages/base.py": MODELS,
    "stages/sft.py": {"sft", "predict@sft", *POLICY},
    "stages/rm.py": PREFERENCES,
    "stages/ppo.py": POLICY,
    "stages/predict.py": ANSWERS,
    "stages/evaluate.py": {"evaluate", "report"},
    "stages/report.py": {"report"},
}

# No stage reads any of these, and none runs the commands around the graph.
COMMANDS = {file.relative_to(ROOT).as_posix() for file in (ROOT / "stages").glob("[!_]*.py")}
TOOLS = COMMANDS - {f"stages/{module}.py" for module in MODULES.values()}
IDLE = (
    *sorted(TOOLS),
    "README.md",
    "Makefile",
    "pyproject.toml",
    "tests/test_dvc.py",
    "data/README.md",
    "data/sample/README.md",
    "data/sample/generate.py",
    "profiles/covid-tiny.yaml",
)
PARAMETERS = dict(parameters.flat(parameters.document()))


def test_tables_are_whole() -> None:
    """A new room, stage or parameter has to be entered; what is gone has to be taken out."""
    assert set(AFTER_AN_EDIT) == {f"stages/{room}" for room in MAY_IMPORT} | (COMMANDS - TOOLS)
    for key in PARAMETERS:
        assert len(rows := [name for name in AFTER_A_PARAMETER if key in below(name)]) == 1, f"{key} is in {rows}"


def below(name: str) -> list[str]:
    """The parameters that one row of the table speaks of."""
    return [key for key in PARAMETERS if key == name or key.startswith(f"{name}.")]


@pytest.mark.parametrize("name", AFTER_A_PARAMETER)
def test_parameter(name: str, repo: Any, finished: Path) -> None:
    key = max(below(name), key=lambda key: key.count("."))  # DVC compares whole sections: one key stands for the rest
    document = parameters.document()
    *above, last = key.split(".")
    section = document
    for part in above:
        section = section[part]
    section[last] = other_value(key, section[last], finished)
    with edited(finished / "params.yaml", yaml.safe_dump(document).encode()):
        # dvc.yaml is filled from these two, so DVC has to read it anew.
        in_the_graph = f"${{{key}}}" in (finished / "dvc.yaml").read_text(encoding="utf-8")
        assert run_again(type(repo)(str(finished)) if in_the_graph else repo, finished) == AFTER_A_PARAMETER[name]


def other_value(key: str, value: Any, root: Path) -> Any:
    """A value that this key does not have; for a path, data that is not the same."""
    if key in ("data.dialogues", "data.preferences"):
        for file in (root / "data/sample").glob("*.json"):
            (root / "data/other").mkdir(exist_ok=True)
            text = file.read_text(encoding="utf-8")
            (root / "data/other" / file.name).write_text(text.replace("。", "！"), encoding="utf-8")
        return value.replace("data/sample", "data/other")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 or 1
    if isinstance(value, list):
        return value[:-1]
    if key.endswith("_prefix"):
        return value[:-1]  # still a prefix of every turn
    return f"{value} and another"


@pytest.mark.parametrize("place", AFTER_AN_EDIT)
def test_edit(place: str, repo: Any, finished: Path) -> None:
    file = finished / place
    if file.is_dir():
        file = max(file.rglob("*.py"))  # any will do, also one further down
    with edited(file, file.read_bytes() + b"\n"):
        assert run_again(repo, finished) == AFTER_AN_EDIT[place]


@pytest.mark.parametrize("suffix", sorted({file.suffix for file in (ROOT / "stages/page").iterdir() if file.is_file()}))
def test_what_the_page_is_made_of(suffix: str, repo: Any, finished: Path) -> None:
    """Its texts, styles and scripts count like its code."""
    file = max((finished / "stages/page").glob(f"*{suffix}"))
    with edited(file, file.read_bytes() + b"\n"):
        assert run_again(repo, finished) == {"report"}


@pytest.mark.parametrize("file", IDLE)
def test_what_no_stage_reads(file: str, repo: Any, finished: Path) -> None:
    with edited(finished / file, b"another text\n"):
        assert stale(repo) == set()


@contextmanager
def edited(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


def stale(repo: Any) -> set[str]:
    """The stages whose own command, parameters or files are not those of dvc.lock."""
    with repo.lock:
        return {stage.name for stage in repo.index.stages if stage.changed_stage() or stage.changed_deps()}


def run_again(repo: Any, root: Path) -> set[str]:
    """The stages that `dvc repro` would run: a changed file makes those stale that read it or a folder around it.

    The first stage is run, to see which of its files change; of any other every out counts as changed.
    """
    stages = {stage.name: stage for stage in repo.index.stages}
    found = stale(repo)
    changed = [Path(out.fs_path) for name in found - {"preprocess"} for out in stages[name].outs]
    if "preprocess" in found:
        before = contents(stages["preprocess"])
        with at_work_in(root):
            run(stages["preprocess"].cmd, root)
        changed += [file for file, content in contents(stages["preprocess"]).items() if content != before[file]]
        for file, content in before.items():
            file.write_bytes(content)
    while changed:
        out = changed.pop()
        for name in stages.keys() - found:
            read = [Path(dep.fs_path) for dep in stages[name].deps]
            if any(path == out or path in out.parents or out in path.parents for path in read):
                found.add(name)
                changed += [Path(out.fs_path) for out in stages[name].outs]
    return found


def contents(stage: Any) -> dict[Path, bytes]:
    """Every file of a stage's outs, in or outside of its out folders."""
    outs = [Path(out.fs_path) for out in stage.outs]
    files = [file for out in outs for file in ([out] if out.is_file() else out.rglob("*"))]
    return {file: file.read_bytes() for file in files if file.is_file()}
