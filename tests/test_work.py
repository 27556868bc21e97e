"""Where unfinished state lives: whose it is, who may work in it, and when it goes away."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from stages.runtime import atomic, parent, resume

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from stages.runtime import resume
with resume.folder("sft", [1], [Path(sys.argv[1])]) as path:
    print(path.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("text")
    return tmp_path / "data"


def test_a_temporary_experiment_keeps_its_state_in_the_checkout_and_its_notes_to_itself(monkeypatch, tmp_path):
    monkeypatch.delenv("COVID_DOCTOR_WORK")
    for copy in ("", ".dvc/tmp/exps/tmp1a2b", ".dvc/tmp/exps/standalone/tmp1a2b"):  # the queue's, --temp's
        monkeypatch.setattr(resume, "ROOT", tmp_path / copy)
        assert resume.root() == tmp_path / ".work"
        assert resume.own_root() == tmp_path / copy / ".work"


def test_the_key_follows_parameters_inputs_and_versions(data, monkeypatch):
    first = resume.key("sft", {"a": 1, "b": 2}, [data])
    assert resume.key("sft", {"b": 2, "a": 1}, [data]) == first
    others = {resume.key("sft", {"a": 1, "b": 3}, [data]), resume.key("rm", {"a": 1, "b": 2}, [data])}
    for package in ("torch", "transformers", "peft", "trl", "accelerate"):
        with monkeypatch.context() as patch:
            patch.setattr(resume, "version", lambda name, changed=package: "9" if name == changed else "1")
            others.add(resume.key("sft", {"a": 1, "b": 2}, [data]))
    (data / "a").rename(data / "b")
    others.add(resume.key("sft", {"a": 1, "b": 2}, [data]))
    (data / "b").write_text("test")
    others.add(resume.key("sft", {"a": 1, "b": 2}, [data]))
    assert len(others | {first}) == 10


def test_the_key_follows_the_code_that_dvc_yaml_names(data, monkeypatch, tmp_path):
    code = tmp_path / "code"
    shutil.copytree(ROOT / "stages", code / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", code)
    keys = {stage: resume.key(stage, 1, [data]) for stage in ("sft", "ppo", "unknown")}
    monkeypatch.setattr(resume, "ROOT", code)
    assert {stage: resume.key(stage, 1, [data]) for stage in keys} == keys

    def changed(file):
        with (code / file).open("a") as stream:
            stream.write("\n")
        before = dict(keys)
        keys.update({stage: resume.key(stage, 1, [data]) for stage in keys})
        return {stage for stage in keys if keys[stage] != before[stage]}

    assert changed("stages/training/trainer.py") == {"sft", "unknown"}
    assert changed("stages/rl/maths.py") == {"ppo", "unknown"}
    assert changed("stages/models/lora.py") == {"sft", "ppo", "unknown"}
    assert changed("stages/page/figures.py") == {"unknown"}  # what dvc.yaml does not name stands on everything


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


def test_only_states_that_nobody_has_touched_for_long_go(root, data):
    states = [leave_half_done(number, data) for number in range(5)]
    long_ago = time.time() - (resume.KEEP_DAYS + 1) * 86400
    half_deleted = root / "sft" / "0123.finished"
    half_deleted.mkdir()
    with resume.folder("sft", 2, [data]):
        for state in states[:3]:
            os.utime(state, (long_ago, long_ago))
        leave_half_done(5, data)
        assert [state.exists() for state in states] == [False, False, True, True, True]  # the third is in use
        assert not half_deleted.exists()


@pytest.fixture
def environment(root):
    return os.environ | {"COVID_DOCTOR_WORK": str(root), "PYTHONPATH": str(ROOT)}


def test_two_runs_with_one_key_work_beside_each_other(root, data, environment, capsys):
    arguments = [sys.executable, "-c", HOLD, str(data)]
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        key = first.stdout.readline().decode().strip()
        assert key == resume.key("sft", [1], [data])
        with resume.folder("sft", [1], [data]) as second, resume.folder("sft", [1], [data]) as third:
            assert (second.name, third.name) == (f"{key}-2", f"{key}-3")
            said = capsys.readouterr().err.splitlines()
            assert said[0] == (
                f"sft: another run with the same parameters works in {root}/sft/{key}; this one works beside it"
            )
        with resume.folder("sft", [2], [data]) as other:
            assert not other.name.endswith("-2")
        first.kill()
    with resume.folder("sft", [1], [data]) as again:  # the lock of a killed process is gone
        assert again.name == key
    assert list((root / "sft").iterdir()) == []


WRITE = """
import sys
from pathlib import Path
from stages.runtime import atomic
for number in range(300):
    atomic.write_json(Path(sys.argv[1]), {"number": number, "text": "x" * 5000})
"""


def test_two_processes_can_write_one_file(tmp_path, environment):
    file = tmp_path / "cost.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(file)], env=environment) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.glob("*cost*")] == ["cost.json"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    with subprocess.Popen(["true"]) as process:
        pass
    dead, alive = tmp_path / f".a.{process.pid}-00ff.partial", tmp_path / f".a.{os.getppid()}-00ff.partial"
    for path in (dead, alive):
        path.write_text("half")
    atomic.write_text(tmp_path / "a", "whole")
    assert {path.name for path in tmp_path.glob(".a*")} == {alive.name}
    dead.mkdir()
    (dead / "file").write_text("half")
    with suppress(ZeroDivisionError), atomic.folder(tmp_path / "a") as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert {path.name for path in tmp_path.glob(".a*")} == {alive.name}
    assert (tmp_path / "a").read_text() == "whole"
    with atomic.folder(tmp_path / "a") as folder:
        (folder / "file").write_text("whole")
    assert (tmp_path / "a" / "file").read_text() == "whole"


DVC = """
import os, subprocess, sys
command = [sys.executable, "-c", sys.argv[1]]
if sys.argv[2] == "launcher":  # torchrun stands between
    command = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command]
child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"DVC_STAGE": "predict@base"})
print(child.stdout.readline().decode().strip(), flush=True)
child.wait()
"""
STAGE = """
import os, time
from stages.runtime.command import command
@command
def main():
    print(os.getpid(), flush=True)
    time.sleep(600)
main()
"""


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("between", ["nothing", "launcher"])
def test_every_stage_ends_with_the_dvc_that_started_it(tmp_path, environment, between, noticed):
    """Also when nobody has waited for the dead `dvc` yet: a zombie still has a process id."""
    (tmp_path / "dvc").write_text(DVC)
    arguments = [sys.executable, tmp_path / "dvc", STAGE, between]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(1.5)
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        if noticed:
            parent.wait()
        deadline = time.monotonic() + 60
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(pid)


def test_a_system_that_hides_processes_stops_no_stage(monkeypatch):
    """As `hidepid` does on some clusters."""

    def hidden(_):
        raise psutil.AccessDenied

    monkeypatch.setenv("DVC_STAGE", "sft")
    monkeypatch.setattr(psutil.Process, "parents", hidden)
    before = threading.active_count()
    parent.watch()
    assert threading.active_count() == before


def test_a_command_run_by_hand_outlives_its_shell(environment):
    arguments = ["bash", "-c", f"{sys.executable} -c '{STAGE}' & wait"]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as shell:
        pid = int(shell.stdout.readline())
        shell.kill()
        shell.wait()
        time.sleep(2)
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
