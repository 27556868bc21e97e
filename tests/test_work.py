"""Where unfinished state lives: whose it is, who may work in it, and when it goes away."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stages.runtime import imports, resume
from stages.runtime.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from stages.runtime import resume
with resume.folder("sft", [1], [Path(sys.argv[1])]):
    print("in", flush=True)
    sys.stdin.read()
"""
SPAWN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdin=sys.stdin, stdout=subprocess.PIPE)
print(child.stdout.readline().strip(), child.pid, flush=True)
child.wait()
"""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(resume, "_die_with_parent", lambda: None)
    return tmp_path / "work"


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("text")
    return tmp_path / "data"


def test_a_temporary_experiment_keeps_its_state_in_the_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("COVID_DOCTOR_WORK")
    for copy in ("", ".dvc/tmp/exps/tmp1a2b", ".dvc/tmp/exps/standalone/tmp1a2b"):  # the queue's, --temp's
        monkeypatch.setattr(imports, "ROOT", tmp_path / copy)
        assert resume.root() == tmp_path / ".work"


def test_the_key_follows_parameters_inputs_and_code(data, monkeypatch, tmp_path):
    first = resume.key("sft", {"a": 1, "b": 2}, [data])
    assert resume.key("sft", {"b": 2, "a": 1}, [data]) == first
    others = {resume.key("sft", {"a": 1, "b": 3}, [data]), resume.key("rm", {"a": 1, "b": 2}, [data])}
    (data / "a").rename(data / "b")
    others.add(resume.key("sft", {"a": 1, "b": 2}, [data]))
    (data / "b").write_text("test")
    others.add(resume.key("sft", {"a": 1, "b": 2}, [data]))
    assert len(others | {first}) == 5

    code = tmp_path / "code"
    for file in imports.closure(imports.ROOT / "stages" / "sft.py"):
        (code / file).parent.mkdir(parents=True, exist_ok=True)
        (code / file).write_bytes((imports.ROOT / file).read_bytes())
    before = resume.key("sft", 1, [data])
    monkeypatch.setattr(imports, "ROOT", code)
    monkeypatch.setattr(imports.closure, "__defaults__", (code,))
    assert resume.key("sft", 1, [data]) == before
    with (code / "stages/training/supervised.py").open("a") as file:
        file.write("\n")
    assert resume.key("sft", 1, [data]) != before


def leave_half_done(parameters, data):
    """The folder of a run that came to grief."""
    with suppress(ZeroDivisionError), resume.folder("sft", parameters, [data]) as state:
        (state / "half").write_text("done")
        raise ZeroDivisionError
    return state


def test_state_outlives_an_error_and_goes_with_success(root, data, capsys):
    state = leave_half_done(1, data)
    assert "found the state" not in capsys.readouterr().err
    with resume.folder("sft", 1, [data]) as again:
        assert again == state and (again / "half").read_text() == "done"
        assert capsys.readouterr().err == "sft: found the state of an unfinished run, going on from it\n"
    assert list((root / "sft").iterdir()) == []


def test_superseded_states_go_but_for_the_newest_and_those_in_use(root, data):
    for number in range(5):
        os.utime(leave_half_done(number, data), (number, number))
    kept = {p.name for p in (root / "sft").iterdir() if p.is_dir()}
    assert kept == {resume.key("sft", number, [data]) for number in (2, 3, 4)}
    half_deleted = root / "sft" / "0123.finished"
    half_deleted.mkdir()
    with resume.folder("sft", 2, [data]) as oldest:
        os.utime(oldest, (1, 1))
        with resume.folder("sft", 5, [data]):
            kept = {p.name for p in (root / "sft").iterdir() if p.is_dir()}
            assert kept == {resume.key("sft", number, [data]) for number in (2, 3, 4, 5)}


@pytest.fixture
def environment(root):
    return os.environ | {"COVID_DOCTOR_WORK": str(root), "PYTHONPATH": str(imports.ROOT)}


def test_two_processes_cannot_work_in_one_folder(data, environment):
    arguments = [sys.executable, "-c", HOLD, str(data)]
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with pytest.raises(UserError, match=r"another process is running `sft` in .*; wait for it or end it"):
            resume.folder("sft", [1], [data]).__enter__()
        with resume.folder("sft", [2], [data]):  # another key is another folder
            pass
        first.kill()
    with resume.folder("sft", [1], [data]):  # the lock of a killed process is gone
        pass


def test_a_lock_that_its_owner_just_took_away_is_no_lock(root, data, monkeypatch):
    flock = resume.fcntl.flock

    def late(file, how):
        path = next((root / "sft").glob("*.lock"))
        path.unlink()  # the owner finishes between our opening of the file and our lock on it
        flock(file, how)

    monkeypatch.setattr(resume.fcntl, "flock", late)
    with pytest.raises(UserError, match="another process"):
        resume.folder("sft", 1, [data]).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told by a signal on Linux alone")
def test_a_stage_dies_with_its_parent(data, environment):
    arguments = [sys.executable, "-c", SPAWN, str(data), HOLD]
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        word, pid = parent.stdout.readline().split()
        assert word == b"b'in'"
        os.kill(int(pid), 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 60
        while alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(int(pid))


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
