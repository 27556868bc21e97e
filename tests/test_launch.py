"""`python -m stages.launch`: which launcher it takes, from where, in every shell, and what is recorded of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages import launch
from stages.runtime import environment, resume
from stages.runtime.errors import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHOW = """#!{python}
import json, os, sys
print(json.dumps(sys.argv[1:] + [os.environ["COVID_DOCTOR_LAUNCH"]]))
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    monkeypatch.setattr(resume, "ROOT", tmp_path / ".dvc/tmp/exps/tmp1a2b")  # a temporary copy
    return tmp_path


@pytest.fixture
def shows(tmp_path) -> Path:
    """A launcher whose path holds a space, which prints what it was given."""
    program = tmp_path / "my programs" / "launcher"
    program.parent.mkdir()
    program.write_text(SHOW.format(python=sys.executable))
    program.chmod(0o755)
    return program


def run(*arguments: str, shell: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.launch", *arguments]
    if shell:
        command = [shell, "-c", " ".join(command)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)


@pytest.mark.parametrize("shell", [None, "sh", "bash", "zsh", "fish"])
def test_the_launcher_gets_the_module_and_its_options_whatever_the_shell(shell, shows):
    if shell and not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    line = f"'{shows}' --nproc-per-node 2"
    done = run("sft", "--train", "a.jsonl", shell=shell, COVID_DOCTOR_LAUNCH=line)
    assert json.loads(done.stdout) == ["--nproc-per-node", "2", "-m", "stages.sft", "--train", "a.jsonl", line]


def test_without_a_launcher_the_stage_itself_runs():
    done = run("sft", "--help", COVID_DOCTOR_LAUNCH="")
    assert done.returncode == 0 and "python -m stages.sft" in done.stdout


def test_a_control_is_named_with_its_package(shows):
    done = run("controls.dpo", "--train", "a.jsonl", COVID_DOCTOR_LAUNCH=f"'{shows}'")
    assert json.loads(done.stdout)[:2] == ["-m", "controls.dpo"]


def test_the_variable_wins_over_the_file_of_the_checkout_itself(checkout, monkeypatch):
    file = checkout / ".launch"
    assert launch.launcher() == ("", str(file))
    file.write_text("# two of them\ntorchrun --nproc-per-node 2\n")
    assert launch.launcher() == ("torchrun --nproc-per-node 2", str(file))
    monkeypatch.setenv(launch.VARIABLE, "")
    assert launch.launcher() == ("", launch.VARIABLE)  # one process, once


def test_torchrun_is_found_beside_the_interpreter(monkeypatch):
    monkeypatch.setenv("PATH", "")
    program, *words = launch.command("torchrun --standalone", "")
    assert Path(program) == Path(sys.executable).parent / "torchrun" and words == ["--standalone"]


def test_mistakes_are_one_line(checkout):
    (checkout / ".launch").write_text("torchrun\naccelerate launch\n")
    with pytest.raises(UserError, match=r"\.launch: must be one line, the launcher; it has 2"):
        launch.launcher()
    with pytest.raises(UserError, match="x: there is no program `torchrn`"):
        launch.command("torchrn --standalone", "x")
    with pytest.raises(UserError, match="x: No closing quotation"):
        launch.command("'torchrun", "x")
    done = run("sft", COVID_DOCTOR_LAUNCH="torchrn")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_the_environment_names_the_launcher_where_it_was_launched(monkeypatch):
    monkeypatch.setenv(launch.VARIABLE, "torchrun")
    assert "launcher" not in environment.describe()  # the stage was started by hand
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert environment.describe()["launcher"] == "torchrun"
