"""Experiments: their table, and that none of a queued grid is lost."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import at_work_in, run
from finished_runs import Project

from stages import compare, experiments, seeds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # in dependencies of DVC

LIMIT = 900
"""Seconds for the grid; on an idle machine of two cores it takes about one minute."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `dvc exp show --json` prints of two finished experiments."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run()
    project.record()
    project.commit("first")
    for name, changes in {"longer": {"closing": 0.8, "ppo__kl_coef": 0.1}, "seed-2": {"seed": 2}}.items():
        project.run(**changes)
        project.record()
        project.experiment(name)
    with contextlib.chdir(project.folder):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "show", "--json"], capture_output=True, text=True, check=True
        )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_table(document: list[dict[str, Any]]) -> None:
    lines = list(experiments.table(document))
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["ppo"] * 4 + ["sft"] * 2, "ppo first"
    assert lines[1].split() == ["ROUGE-L", "reward", "length", "distinct-2", "ROUGE-L", "length"]
    assert re.fullmatch(r"main [0-9a-f]{7}", lines[2])
    assert lines[3].split() == ["20.50", "0.10", "6.0", "40.00", "20.50", "6.0"]
    at = lines.index("longer  done  ppo.kl_coef 0.3 → 0.1")
    assert lines[at + 1].split() == ["20.50", "0.10", "24.0", "40.00", "20.50", "24.0"]
    assert lines[at + 2].split() == ["change", "0.00", "0.00", "+18.0", "0.00", "0.00", "+18.0"]
    assert "seed-2  done  seed 1 → 2" in lines
    assert not any(line.startswith("workspace") for line in lines), "it is the commit"


@pytest.mark.parametrize("state", ["failed", "queued", "running"])
def test_what_did_not_end_has_no_numbers(document: list[dict[str, Any]], state: str) -> None:
    """DVC fills its row from the files of the commit that it started from."""
    document = json.loads(json.dumps(document))
    for experiment in document[1]["experiments"]:
        if experiment["name"] == "longer":
            experiment["executor"] = {"state": state, "name": "dvc-task"}
    lines = list(experiments.table(document))
    at = lines.index(f"longer  {state}  ppo.kl_coef 0.3 → 0.1")
    assert lines[at + 1 : at + 2] in ([], [""])


def test_long_names_and_many_parameters_fit(document: list[dict[str, Any]]) -> None:
    document = json.loads(json.dumps(document))
    longer = next(each for each in document[1]["experiments"] if each["name"] == "longer")
    longer["name"] = "x" * 60
    longer["revs"][0]["data"]["params"]["params.yaml"]["data"]["sft"] = {f"key_{n}": n for n in range(20)}
    assert max(map(len, experiments.table(document))) <= 80


def test_no_experiment_yet(document: list[dict[str, Any]]) -> None:
    workspace, commit = document
    assert (
        "no experiment from this commit yet" in list(experiments.table([workspace, commit | {"experiments": None}]))[-1]
    )


@pytest.mark.slow
def test_a_queued_grid_below_a_shared_change_with_two_workers(smallest: Path, tmp_path: Path) -> None:
    """Both experiments need the same new sft at the same time, and both end well."""
    root = tmp_path / "checkout"
    shutil.copytree(smallest, root, symlinks=True)
    with at_work_in(root):
        run(f"dvc config --local cache.dir {root}/.dvc/cache", root)
        run("dvc exp run --queue --set-param sft.learning_rate=0.00004 --set-param 'ppo.kl_coef=0.1,0.2'", root)
        try:
            # A worker keeps the file that it was started with open: a pipe would end with the queue only.
            run("dvc queue start --jobs 2 > queue.log 2>&1", root)
            statuses = finished_queue()
        finally:
            run("dvc queue stop --kill >> queue.log 2>&1", root)
        assert list(statuses.values()) == ["Success"] * 2, str(statuses) + failures(statuses, root)
        names = run("dvc exp list --name-only", root).split()
        compared = run(f"python -m stages.compare HEAD {' '.join(names)} --page compare.html", root)
        table = run("python -m stages.experiments", root)
        locks = [yaml.safe_load(run(f"git show {commit}:dvc.lock", root))["stages"] for commit in commits(root)]
    sft, ppo = ([out["md5"] for lock in locks for out in lock[stage]["outs"][:1]] for stage in ("sft", "ppo"))
    assert len(set(sft)) == 1, "the shared stage gave both the same bytes"
    assert len(set(ppo)) == 2
    rows = [line for line in compared.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[0] for row in rows] == ["| `sft.learning_rate`", "| `ppo.kl_coef`"]
    assert "0.1" in rows[1] and "0.2" in rows[1] and (root / "compare.html").stat().st_size > 2**17
    assert all(f"{name}  done" in table for name in names)


def finished_queue() -> dict[str, str]:
    """The status of each experiment, once none waits or runs."""
    for _ in range(LIMIT // 3):
        statuses = compare.queue()
        if not set(statuses.values()) & set(seeds.WAITING):
            break
        time.sleep(3)
    return statuses


def failures(statuses: dict[str, str], root: Path) -> str:
    """The ends of the logs of the experiments that failed."""
    names = [name for name, status in statuses.items() if status == "Failed"]
    return "".join(f"\n{name}: {run(f'dvc queue logs {name}', root)[-2000:]}" for name in names)


def commits(root: Path) -> list[str]:
    """Those of the experiments that ended."""
    names = run("dvc exp list --name-only", root).split()
    return [run(f"git for-each-ref --format='%(objectname)' 'refs/exps/*/*/{name}'", root).strip() for name in names]
