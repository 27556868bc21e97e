"""Results are kept and handed on: to colleagues, past a failing stage, into experiments. Nothing trains here."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import at_work_in, git
from imports import ROOT
from test_graph import PAGE

from stages import verify

# DVC's own dependencies; none of it is for this project to repair.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")]

ONLY_THE_PAGE = {"report": [{"changed outs": {PAGE: "deleted"}}]}


def cached_files(root: Path, repo: Any) -> dict[str, bytes]:
    found = {}
    for out in repo.index.outs:
        path = root / out.def_path
        if out.use_cache:
            for file in [path] if path.is_file() else path.rglob("*"):
                found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


def test_a_colleague_gets_every_result_without_training(repo: Any, finished: Path, clone: Path) -> None:
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        assert cached_files(clone, theirs) == {}
        theirs.pull()
        assert cached_files(clone, theirs) == cached_files(finished, repo)
        assert theirs.status() == ONLY_THE_PAGE


def test_repro_with_pull_runs_nothing(repo: Any, finished: Path, clone: Path) -> None:
    """But the report, for its page, which is kept nowhere: tests/test_smallest.py makes it anew."""
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        assert theirs.reproduce(["evaluate"], pull=True) == []
        assert theirs.status() == ONLY_THE_PAGE
        assert cached_files(clone, theirs) == cached_files(finished, repo)
    assert git(clone, "status", "--porcelain") == ""


def test_repro_with_allow_missing_needs_no_results(repo: Any, clone: Path) -> None:
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        assert theirs.reproduce(allow_missing=True) == []
    assert git(clone, "status", "--porcelain") == ""


def test_a_failing_stage_leaves_the_rest_as_it_was(repo: Any, clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from dvc.exceptions import ReproductionError

    parameters = clone / "params.yaml"
    document = yaml.safe_load(parameters.read_text(encoding="utf-8"))
    document["data"]["preferences_validate_ratio"] = 0.3  # preprocess runs, and then rm, whose base is made up
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        theirs.pull()
        before = cached_files(clone, theirs)
        lock = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        parameters.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ReproductionError):
            theirs.reproduce()
        assert "error: models/base" in capfd.readouterr().err
        after = cached_files(clone, theirs)

    lock_after = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert {name for name in lock if lock[name] != lock_after[name]} == {"preprocess"}
    assert lock.keys() == lock_after.keys()
    outs = tuple(out["path"] for out in lock["rm"]["outs"])
    own = {name for name in before if name.startswith(outs)}
    assert before.keys() - after.keys() <= own  # DVC deletes a stage's outs before it runs; `dvc checkout` gives them
    assert {name for name in after if after[name] != before[name]} == {
        "data/processed/preferences_train.jsonl",
        "data/processed/preferences_validate.jsonl",
        "reports/data/metrics.json",
    }
    assert {line[3:] for line in git(clone, "status", "--porcelain").splitlines()} == {"params.yaml", "dvc.lock"}


def test_an_experiment_of_its_own_folder_runs_the_code_that_it_was_queued_with(repo: Any, clone: Path) -> None:
    """What `dvc exp run --temp` and a worker of the queue do: a later edit in the checkout plays no part."""
    stage = clone / "stages/preprocess.py"
    with at_work_in(clone), pytest.MonkeyPatch.context() as patch, type(repo)(str(clone)) as theirs:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "tests")
            patch.setenv(f"GIT_{who}_EMAIL", "tests")
        experiments = theirs.experiments
        queue = experiments.queue_one

        def queue_and_edit(*args: Any, **kwargs: Any) -> Any:
            entry = queue(*args, **kwargs)
            stage.write_text("raise SystemExit('the code of later')\n", encoding="utf-8")
            return entry

        patch.setattr(experiments, "queue_one", queue_and_edit)
        theirs.pull(["preprocess"])
        (found,) = experiments.run(["preprocess"], params=["data.preferences_validate_ratio=0.3"], tmp_dir=True)

    lock = yaml.safe_load(git(clone, "show", f"{found}:dvc.lock"))["stages"]["preprocess"]
    assert lock["params"]["params.yaml"]["data"]["preferences_validate_ratio"] == 0.3
    assert git(clone, "status", "--porcelain").split() == ["M", "stages/preprocess.py"]
    assert not list((clone / ".dvc/tmp/exps").rglob("tmp*"))


# ----------------------------------------------------------------------------------------------------------------------
# Two runs compared, and the data that is fetched


def test_verify_names_the_file_that_differs(finished: Path, tmp_path: Path) -> None:
    sides = [tmp_path / "first", tmp_path / "second"]
    for side in sides:
        shutil.copytree(finished, side, ignore=shutil.ignore_patterns("store", ".git"))
    assert verify.differences(*sides) == []

    (sides[1] / "models/sft/weights").write_text("others")
    lock = sides[1] / "dvc.lock"
    document = yaml.safe_load(lock.read_text(encoding="utf-8"))
    document["stages"]["sft"]["outs"][0]["md5"] = "0" * 32
    lock.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert document["stages"]["sft"]["outs"][0]["path"] == "models/sft"
    assert verify.differences(*sides) == ["sft writes models/sft/weights"]


IMPORTS = sorted((ROOT / "data/covid-dialogue").glob("*.json.dvc"))


def test_import_of_the_dialogues_is_pinned() -> None:
    assert (ROOT / "data/covid-dialogue/.dvc/config").is_file(), "a DVC project of its own: no network for the others"
    assert [file.stem for file in IMPORTS] == ["test_data.json", "train_data.json", "validate_data.json"]
    note = (ROOT / "data/README.md").read_text(encoding="utf-8")
    ignored = (ROOT / "data/covid-dialogue/.gitignore").read_text(encoding="utf-8").split()
    for file in IMPORTS:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        source = document["deps"][0]
        assert document["frozen"]
        assert source["path"] == f"CovidDialog/Chinese-COVID-dialogue-code/data/{file.stem}"
        assert source["repo"]["url"] == "https://github.com/UCSD-AI4H/COVID-Dialogue"
        assert source["repo"]["rev"] == source["repo"]["rev_lock"]
        assert len(source["repo"]["rev"]) == 40
        assert source["repo"]["rev"] in note
        assert document["outs"][0]["path"] == file.stem
        assert f"/{file.stem}" in ignored


@pytest.mark.parametrize("file", IMPORTS, ids=lambda file: file.stem)
def test_import_is_the_published_file(file: Path) -> None:
    local = ROOT / "data" / "covid-dialogue" / file.stem
    if not local.is_file():
        pytest.skip(f"{local} is not there: `make data` fetches it")
    out = yaml.safe_load(file.read_text(encoding="utf-8"))["outs"][0]
    content = local.read_bytes()
    assert (out["md5"], out["size"]) == (hashlib.md5(content).hexdigest(), len(content))
