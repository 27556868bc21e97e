"""The whole graph, really run with the smallest profile: it ends, it is finished, and it gives the bytes of always."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from checkouts import at_work_in, git, repro, run
from imports import ROOT
from test_graph import MODULES, PAGE

from stages import reproduce

pytestmark = pytest.mark.slow


def test_every_stage_ran_and_nothing_is_left_to_do(smallest: Path) -> None:
    lock = yaml.safe_load((smallest / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert set(lock) == set(MODULES)
    assert all((smallest / out["path"]).exists() for stage in lock.values() for out in stage["outs"])
    assert repro(smallest) == []
    assert git(smallest, "status", "--porcelain") == ""
    assert not [path for path in smallest.rglob("*.partial") if ".dvc" not in path.parts]


def test_the_bytes_are_those_that_git_keeps(smallest: Path) -> None:
    """From another folder, commit or machine. `make reproduce UPDATE=1` renews the file after an intended change."""
    kept = (ROOT / "profiles/smallest.sha256").read_text(encoding="utf-8").splitlines()
    found = reproduce.hashes(smallest).splitlines()
    assert len(kept) > 10
    assert sorted(set(kept) ^ set(found)) == []


def test_two_stacks_of_the_run_are_compared(smallest: Path) -> None:
    with at_work_in(smallest):
        printed = run("python -m stages.compare HEAD:sft HEAD:ppo", smallest)
    assert "| Metric | HEAD:sft | HEAD:ppo | difference from HEAD:sft |" in printed


def test_each_stage_is_held_against_its_floor(smallest: Path) -> None:
    with at_work_in(smallest):
        lines = run("python -m benchmarks.floor", smallest).splitlines()
    found = {stage: float(times) for stage, *_, times in map(str.split, lines[-6:])}
    assert set(found) == {"sft", "rm", "ppo", "predict@base", "predict@sft", "predict@ppo"}
    assert min(found.values()) > 1, "no stage is quicker than its matrix products"


def test_a_commit_answers_fresh_questions_as_the_workspace_does(smallest: Path, tmp_path: Path) -> None:
    run(f"{sys.executable} data/sample/generate.py --fresh 5 --to {tmp_path}", smallest)
    with at_work_in(smallest):
        tables = [run(f"python -m controls.fresh {tmp_path} {rev}", smallest) for rev in ("workspace", "HEAD")]
    workspace, commit = ([line for line in table.splitlines() if line.startswith("| `")] for table in tables)
    assert len(workspace) == 1 and commit == [workspace[0].replace("workspace", "HEAD")]


def test_a_clone_with_the_cache_makes_only_the_page_anew(smallest: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(smallest), "clone")
    clone = tmp_path / "clone"
    shutil.copy(smallest / ".dvc/config.local", clone / ".dvc/config.local")
    with at_work_in(clone):
        run("dvc checkout", clone)
    assert set(repro(clone)) <= {"report"}  # DVC keeps the page itself too, once a second run has asked for it
    assert (clone / PAGE).read_bytes() == (smallest / PAGE).read_bytes()
    assert git(clone, "status", "--porcelain") == ""
