"""Checkouts in which the pipeline has run: with made-up models, in no time, and really, with the profile `smallest`."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from imports import ROOT


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git checkout with the pipeline's files and outs: the samples are real, all after them is made up."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("finished")
    for folder in ("stages", "data/sample", "profiles"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / file, root / file)
    (root / "store").mkdir()
    git(root, "init", "--quiet")
    repo = Repo.init(str(root))
    (root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {root}/store\n")
    (root / ".git/info/exclude").write_text("/store/\n")
    repo = Repo(str(root))
    with at_work_in(root), repo.lock:
        for stage in repo.index.stages:
            if stage.name == "preprocess":
                run(stage.cmd, root)
            for out in stage.outs if stage.name != "preprocess" else []:
                made_up = Path(out.fs_path)
                weights = made_up if made_up.suffix else made_up / "weights"
                weights.parent.mkdir(parents=True, exist_ok=True)
                weights.write_text(f"made up: {out}\n")
        for stage in repo.index.stages:
            stage.save()
            stage.commit()
            stage.dump(update_pipeline=False)
    repo.push()
    repo.close()
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "finished")
    return root


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(finished), "clone")
    return tmp_path / "clone"


@pytest.fixture(scope="module")
def repo(finished: Path) -> Iterator[Any]:
    from dvc.repo import Repo
    from dvc.utils import serialize

    # DVC parses params.yaml once per stage and test; here each text is parsed once.
    parse = functools.cache(serialize.parse_yaml)
    with pytest.MonkeyPatch.context() as patch, Repo(str(finished)) as repo:
        patch.setitem(serialize.LOADERS, ".yaml", lambda path, fs=None: parse(Path(path).read_text("utf-8"), path))
        assert repo.status() == {}
        yield repo


def git(folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "tests" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *words], cwd=folder, env=environment, text=True, capture_output=True, check=True)
    return done.stdout


def run(command: str, folder: Path) -> str:
    """Run a shell line and return what it printed; AssertionError shows that where it fails."""
    done = subprocess.run(
        command, shell=True, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    """The folder's pipeline is the one that DVC means, and the stages run with the Python of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        patch.delenv("DVC_STAGE", raising=False)
        patch.setenv("COVID_DOCTOR_WORK", str(folder / ".work"))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / ".dvc/tmp/site"))
        patch.chdir(folder)
        yield


@pytest.fixture(scope="session")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree, committed, in which `dvc repro` has run the whole graph with the profile `smallest`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return run_smallest(folder)
    with FileLock(folder.parent / "smallest.lock"):  # one worker runs it, each works on a copy
        ran = run_smallest(folder.parent)
    root = Path(shutil.copytree(ran, folder / ran.relative_to(folder.parent), symlinks=True))
    use_own_cache(root)
    return root


def copy_working_tree(to: Path) -> None:
    """What Git tracks or would track of this checkout, as a repository of its own with a cache of its own."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    git(to, "init", "--quiet")
    git(to, "add", "--all")
    git(to, "commit", "--quiet", "--message", "the working tree")
    use_own_cache(to)


def use_own_cache(root: Path) -> None:
    (root / ".dvc/config.local").write_text(f"[cache]\n    dir = {root}/.dvc/cache\n", encoding="utf-8")


def run_smallest(folder: Path) -> Path:
    """Where the run of this folder lies; it is made if there is none yet."""
    root, making = folder / "smallest/checkout", folder / "smallest/making"
    if root.is_dir():
        return root
    copy_working_tree(making)
    (making / "dvc.lock").unlink(missing_ok=True)  # of another run, which plays no part
    with at_work_in(making):
        run("python -m stages.profile smallest && dvc repro", making)
    git(making, "add", "--all")
    git(making, "commit", "--quiet", "--message", "a run")
    making.rename(root)
    use_own_cache(root)
    return root


def repro(root: Path, *arguments: str) -> list[str]:
    """The stages that `dvc repro` runs there, in order.

    Raises:
        AssertionError: a stage fails; what it printed is in the message.
    """
    with at_work_in(root):
        printed = run(" ".join(["dvc repro", *arguments]), root)
    return re.findall(r"^Running stage '([^']+)'", printed, re.M)
