"""The whole graph, really run with the smallest profile: it ends, it is finished, and it gives the same bytes twice."""

from pathlib import Path

import pytest
import yaml
from checkouts import copy_working_tree, git, repro, run_smallest
from test_graph import MODULES

from stages import verify

pytestmark = pytest.mark.slow


def test_every_stage_ran_and_nothing_is_left_to_do(smallest: Path) -> None:
    lock = yaml.safe_load((smallest / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert set(lock) == set(MODULES)
    assert all((smallest / out["path"]).exists() for stage in lock.values() for out in stage["outs"])
    assert repro(smallest) == []
    assert git(smallest, "status", "--porcelain") == ""
    assert not [path for path in smallest.rglob("*.partial") if ".dvc" not in path.parts]


def test_a_second_run_leaves_the_same_bytes(smallest: Path, tmp_path: Path) -> None:
    """From nothing, in another folder: with no file, cache or state of the first run."""
    second = tmp_path / "a second checkout"
    copy_working_tree(second)
    run_smallest(second)
    assert verify.differences(smallest, second) == []
    assert (smallest / "dvc.lock").read_bytes() == (second / "dvc.lock").read_bytes()
