"""What a killed `dvc` leaves, cut off in the middle, is put right without running a finished stage again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from stages import recover

pytestmark = pytest.mark.slow
PIPELINE = """
stages:
  first:
    cmd: echo first >> ran && cp params.yaml first.txt
    params: [a]
    outs: [first.txt]
  second:
    cmd: echo second >> ran && cat first.txt first.txt > second.txt
    deps: [first.txt]
    outs: [second.txt]
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"),
    }
    return subprocess.run(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A pipeline that was committed after one run and has run once more since."""
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text("a: 1\n")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    run(tmp_path, "git", "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    assert dvc(tmp_path, "repro").returncode == 0
    run(tmp_path, *git, "add", "dvc.yaml", "params.yaml", "dvc.lock")
    assert run(tmp_path, *git, "commit", "--quiet", "--message", "a run").returncode == 0
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert dvc(tmp_path, "repro").returncode == 0
    (tmp_path / "ran").unlink()
    return tmp_path


def test_whatever_is_left_of_dvc_lock_no_finished_stage_runs_again(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = checkout / "dvc.lock"
    whole = lock.read_bytes()
    restored = 0
    for number, length in enumerate(range(0, len(whole), 40)):
        lock.write_bytes(whole[:length])
        recover.main(checkout)
        restored += capsys.readouterr().out == (
            "dvc.lock was cut off when dvc was killed: restored from the last commit; finished stages come from DVC's "
            "run cache\n"
        )
        if number % 5 == 0:
            done = dvc(checkout, "repro")
            assert done.returncode == 0, done.stdout
            assert lock.read_bytes() == whole
            assert not (checkout / "ran").exists(), (length, done.stdout)
    assert restored > 3
    lock.write_bytes(whole)
    recover.main(checkout)
    assert capsys.readouterr().out == ""


def test_without_a_committed_lock_it_is_made_anew(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(checkout, "git", "update-ref", "-d", "HEAD")
    whole = (checkout / "dvc.lock").read_bytes()
    (checkout / "dvc.lock").write_bytes(b"")
    recover.main(checkout)
    assert "deleted, since the last commit has none" in capsys.readouterr().out
    assert dvc(checkout, "repro").returncode == 0
    assert (checkout / "dvc.lock").read_bytes() == whole
    assert not (checkout / "ran").exists()


@pytest.mark.parametrize("left", [b"", b"{", b'{"a": \xff'])
def test_a_cut_off_rwlock_goes(checkout: Path, left: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    notes = checkout / ".dvc/tmp/rwlock"
    notes.write_bytes(left)
    (checkout / "params.yaml").write_text("a: 3\n")
    assert dvc(checkout, "repro").returncode, "dvc gets past it by itself: recover has nothing to do"
    recover.main(checkout)
    assert capsys.readouterr().out == "rwlock was cut off when dvc was killed: deleted; dvc makes it anew\n"
    assert dvc(checkout, "repro").returncode == 0


def test_nothing_is_touched_while_dvc_runs(checkout: Path) -> None:
    (checkout / "dvc.lock").write_bytes(b"")
    (checkout / ".dvc/tmp/rwlock").write_bytes(b"{")
    with FileLock(checkout / ".dvc/tmp/lock"):
        recover.main(checkout)
        assert (checkout / "dvc.lock").read_bytes() == b""
        busy = dvc(checkout, "repro")
        assert busy.returncode and "lock" in busy.stdout, "dvc takes another lock than this one"
    recover.main(checkout)
    assert (checkout / "dvc.lock").read_bytes() != b""


def test_a_folder_without_dvc_is_left_alone(tmp_path: Path) -> None:
    recover.main(tmp_path)
    assert list(tmp_path.iterdir()) == []
