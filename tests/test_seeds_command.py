"""`make seeds`: what it queues, that it waits for the end of it, and the table of what came out."""

import contextlib
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from finished_runs import Project

from stages import compare, seeds
from stages.runtime.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # in dependencies of DVC


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A commit with the experiments of two seeds."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run()
    project.record()
    project.commit("first")
    for seed in (1, 2):
        project.run(seed=seed, closing=0.6)
        project.record()
        project.experiment(seeds.name_of(seed))
    return project


def test_the_table_holds_mean_deviation_and_each_value(project: Project) -> None:
    with contextlib.chdir(project.folder):
        text = seeds.table(commits("seed-1", "seed-2"), "en")
        runs, _ = compare.read(["seed-1:ppo", "seed-2:ppo"], "reports")
    assert "| Metric | Base | SFT | difference from Base | PPO |" in text
    values = [statistics.fmean(run.scores["rouge-l"]) for run in runs]
    row = next(line for line in text.splitlines() if line.startswith("| ROUGE-L"))
    assert f"{statistics.fmean(values):.2f} (± {statistics.stdev(values):.2f}, n = 2)" in row
    each = [line.split(" | ") for line in text.splitlines() if line.startswith("| PPO |")]
    assert [line[1] for line in each] == ["`1`", "`2`"]
    for line, value in zip(each, values, strict=True):
        assert f"{value:.2f}" in line
    assert "of seeds" in text


def commits(*names: str) -> dict[str, str]:
    parent = seeds.git("rev-parse", "HEAD")
    return {name: seeds.git("rev-parse", "--verify", "--quiet", seeds.ref_of(name, parent)) for name in names}


def test_an_experiment_that_failed_is_left_out_and_told(project: Project) -> None:
    with contextlib.chdir(project.folder):
        text = seeds.table(commits("seed-1", "seed-2", "seed-3"), "en")
        with pytest.raises(UserError, match="no seed ended well"):
            seeds.table(commits("seed-3"), "en")
    assert "Left out: seed-3: it left no commit" in text


def test_another_commits_experiment_of_the_same_name_is_not_taken(project: Project, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", project.folder, tmp_path], check=True)
    with contextlib.chdir(tmp_path):
        subprocess.run(["git", "fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*"], check=True)
        assert all(commits("seed-1").values())
        who = ["-c", "user.name=x", "-c", "user.email=x"]
        subprocess.run(["git", *who, "commit", "--quiet", "--allow-empty", "--message", "later"], check=True)
        assert commits("seed-1") == {"seed-1": ""}


def test_the_line_is_one_that_dvc_takes() -> None:
    from dvc.cli import parse_args

    parsed = parse_args(seeds.queue_line(7, ["data/own", "data/own.json"]))
    assert (parsed.queue, parsed.name, parsed.set_param) == (True, "seed-7", ["seed=7"])
    assert parsed.copy_paths == ["data/own", "data/own.json"]


def test_data_that_git_does_not_hold_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dialogues/train.json", "dialogues/test.json", "pairs/own pairs.json", "other/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("pairs/\nother/\ntest.json\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text("data: {dialogues: dialogues, preferences: pairs/own pairs.json}\n")
    for line in (["init", "-q"], ["add", "dialogues/train.json"]):
        subprocess.run(["git", *line], check=True)
    assert sorted(seeds.outside_git()) == ["dialogues/test.json", "pairs"]


def test_each_seed_is_queued_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[Any] = []
    states = [
        {"seed-1": "Success"},  # of the last time, in three looks at what is there
        {"seed-1": "Success"},
        {"seed-1": "Running", "seed-2": "Queued"},
        {"seed-1": "Success", "seed-2": "Running"},
        {"seed-1": "Success", "seed-2": "Failed"},
    ]

    def dvc(*arguments: str) -> str:
        done.append(arguments)
        return "seed-1\nother\n" if arguments[:2] == ("exp", "list") else ""

    monkeypatch.setattr(seeds, "dvc", dvc)
    monkeypatch.setattr(compare, "queue", lambda: states.pop(0))
    monkeypatch.setattr(seeds, "POLL", 0)
    monkeypatch.setattr(seeds, "table", lambda commits, language: f"{commits}\n")
    monkeypatch.setattr(seeds, "git", lambda *words: words[-1])
    seeds.main([1, 2, 1], tmp_path / "seeds.md")
    assert done[1:] == [
        ("exp", "remove", "seed-1"),
        tuple(seeds.queue_line(1)),
        tuple(seeds.queue_line(2)),
        ("queue", "start", "--jobs", "1"),
    ]
    assert not states, "it looked until both had ended"
    printed = capsys.readouterr()
    read = {name: seeds.ref_of(name, "HEAD") for name in ("seed-1", "seed-2")}
    assert printed.out == (tmp_path / "seeds.md").read_text() == f"{read}\n"
    assert printed.err == "seed-1: success\nseed-2: failed\n"


def test_a_worker_that_ended_too_early_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one_of_two = {"seed-1": "Running", "seed-2": "Queued"}
    both, none = dict.fromkeys(one_of_two, "Running"), dict.fromkeys(one_of_two, "Success")
    states = [one_of_two] * (seeds.PATIENCE - 1) + [both] + [one_of_two] * seeds.PATIENCE + [none]
    started: list[Any] = []
    monkeypatch.setattr(seeds, "dvc", lambda *arguments: started.append((*arguments, len(states))))
    monkeypatch.setattr(compare, "queue", lambda: states.pop(0))
    monkeypatch.setattr(seeds, "POLL", 0)
    seeds.wait(["seed-1", "seed-2"], jobs=2)
    assert started == [("queue", "start", "--jobs", "2", 1)], "only after as many looks in a row"


def test_a_seed_that_runs_already_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "queue", lambda: {"seed-2": "Running"})
    monkeypatch.setattr(seeds, "dvc", lambda *arguments: pytest.fail(f"dvc {arguments}"))
    with pytest.raises(SystemExit):
        seeds.main([1, 2], None)
    assert "seed-2 is running" in capsys.readouterr().err


def test_a_language_that_there_is_not_is_told_before_anything_trains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        seeds.main([1, 2], None, language="de")
    assert "--language must be one of en, zh, not de" in capsys.readouterr().err
