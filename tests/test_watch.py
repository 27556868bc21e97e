"""What a stage that trains tells while it does: its newest numbers and when it will be done."""

import os
import time
from pathlib import Path

import pytest

from stages import watch
from stages.runtime import live, resume


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "ROOT", tmp_path)
    monkeypatch.delenv("COVID_DOCTOR_WORK", raising=False)
    monkeypatch.setenv("DVC_STAGE", "sft")


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = 1_700_000_000 + seconds
    monkeypatch.setattr(time, "time", lambda: now)


def test_the_newest_row_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for done, seconds in ((10, 0), (20, 60), (30, 120)):
        at(monkeypatch, seconds)
        live.note({"loss": 3.0 - done / 100, "epoch": 0.5, "comment": "no number"}, done, 90)
    expected = time.strftime("%H:%M", time.localtime(1_700_000_000 + 120 + 360))
    watch.main(once=True)
    assert capsys.readouterr().out == f"sft    30/90  loss 2.7  done in 6 min, at {expected}\n"
    at(monkeypatch, 480)
    live.note({"eval_loss": 2.1}, 90, 90)
    watch.main(once=True)
    assert capsys.readouterr().out == "sft    90/90  eval_loss 2.1  trained\n"
    at(monkeypatch, 480 + watch.STALE)
    watch.main(once=True)
    assert capsys.readouterr().out == "no stage trains here\n"


def test_a_run_that_starts_again_tells_its_own_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for done, seconds in ((10, 0), (20, 1000), (11, 2000), (12, 2003)):
        at(monkeypatch, seconds)
        live.note({}, done, 22)
    rows = live.read(tmp_path / ".work/live/sft.jsonl")
    assert [row.done for row in rows] == [11, 12]
    assert live.seconds_left(rows) == 30
    assert live.seconds_left(rows[:1]) is None


def test_a_run_that_goes_on_tells_its_own_pace_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for process, done, seconds in ((1, 90, 0), (1, 100, 60), (2, 110, 36_000), (2, 120, 36_060)):
        at(monkeypatch, seconds)
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        live.note({}, done, 400)
    assert live.seconds_left(live.read(tmp_path / ".work/live/sft.jsonl")) == 28 * 60


def test_a_row_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    live.note({"loss": 1.0}, 1, 2)
    with (tmp_path / ".work/live/sft.jsonl").open("a") as file:
        file.write('[1.0, 2, 2, {"lo')
    assert [row.done for row in live.read(tmp_path / ".work/live/sft.jsonl")] == [1]


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/tmp1a2b", ".dvc/tmp/exps/standalone/tmp1a2b"])
def test_experiments_are_followed_too(
    tmp_path: Path, copy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resume, "ROOT", tmp_path / copy)
    live.note({"score": 0.5}, 3, 40)
    assert (tmp_path / copy / ".work/live/sft.jsonl").exists()
    monkeypatch.setattr(resume, "ROOT", tmp_path)
    watch.main(once=True)
    assert capsys.readouterr().out == "sft    3/40  score 0.5\n"


def test_looking_on_never_stops_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".work").write_text("a file where the folder should be")
    live.note({"loss": 1.0}, 1, 2)
    monkeypatch.delenv("DVC_STAGE")
    (tmp_path / ".work").unlink()
    live.note({"loss": 1.0}, 1, 2)
    monkeypatch.setenv("DVC_STAGE", "sft")
    monkeypatch.setenv("RANK", "1")
    live.note({"loss": 1.0}, 1, 2)
    assert not list(tmp_path.iterdir())
