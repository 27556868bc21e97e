"""`make repro`: stages that do not wait for each other run side by side, and a failure stops them."""

import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from stages import repro
from stages.runtime import resume

pytestmark = [  # the warning is of a dependency of DVC
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]

MEET = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
end = time.monotonic() + 60
while not other.exists():
    assert time.monotonic() < end, "the other one does not run meanwhile"
    time.sleep(0.05)
"""
GRAPH = f"""
stages:
  left:
    cmd: {sys.executable} meet.py left right
    outs: [left]
  right:
    cmd: {sys.executable} meet.py right left
    outs: [right]
  last:
    cmd: cat left right > last
    deps: [left, right]
    outs: [last]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`left` and `right` each wait until the other has begun; `last` needs both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.runtime.resume.checkout", lambda: tmp_path)
    Repo.init(no_scm=True).close()
    (tmp_path / "meet.py").write_text(MEET, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    return tmp_path


def change(project: Path, old: str, new: str) -> None:
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    assert old in text
    (project / "dvc.yaml").write_text(text.replace(old, new), encoding="utf-8")


def test_side_by_side(project: Path) -> None:
    waiting = repro.stale()
    assert waiting == {"left": set(), "right": set(), "last": {"left", "right"}}
    assert repro.run(waiting, jobs=2) == 0
    assert (project / "last").exists()
    assert repro.stale() == {}


def test_where_dvc_can_not_say_what_is_stale_it_is_asked_to_run(project: Path) -> None:
    """It then tells in one line what is wrong."""
    (project / "dvc.yaml").write_text(GRAPH.replace("deps:", "depss:"), encoding="utf-8")
    assert repro.stale() == {}


def test_only_what_comes_after_a_change(project: Path) -> None:
    assert repro.run(repro.stale(), jobs=2) == 0
    change(project, "cat left right", "cat right left")
    assert repro.stale() == {"last": set()}


def test_a_failure_stops_the_others(project: Path) -> None:
    change(project, "meet.py right left", "-c 'raise SystemExit(3)'")
    assert repro.run(repro.stale(), jobs=2) != 0
    assert not (project / "last").exists()


@pytest.mark.parametrize(
    ("threads", "gpu", "cores", "jobs"),
    [
        ("1", False, 2, 2),
        ("1", False, 1, 1),
        ("2", False, 2, 1),
        ("null", False, 8, 1),
        ("1", True, 8, 1),
        ("1", False, 8, 2),
    ],
)
def test_how_many_fit(
    threads: str, gpu: bool, cores: int, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (resume.ROOT / "profiles" / "default.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("cpu_threads: 1", f"cpu_threads: {threads}"), encoding="utf-8")
    monkeypatch.setattr("stages.runtime.resume.checkout", lambda: tmp_path)
    monkeypatch.setattr("stages.runtime.processes.NVIDIA", tmp_path if gpu else tmp_path / "none")
    monkeypatch.delenv("COVID_DOCTOR_LAUNCH", raising=False)
    assert repro.fitting(cores) == jobs
