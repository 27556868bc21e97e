"""What DVC runs again after a change, and that results are kept and handed on; with made-up models, nothing trains."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imports
import pytest
import yaml
from test_graph import MODULES, PAGE

from stages import verify

# DVC's own dependencies; none of it is this project's to mend.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

ROOT = imports.ROOT
ALL = set(MODULES)
PREFERRED = {"rm", "ppo", "predict@ppo", "score", "report"}  # what rests on the preference pairs

# After a change of this parameter, or of one below it, these stages run again and no other.
RUN_AGAIN = {
    "seed": ALL,
    "model": ALL - {"preprocess"},
    "data.dialogues": ALL,
    "data.preferences": {"preprocess", *PREFERRED},  # the dialogue samples come out the same
    "data.preferences_validate_ratio": {"preprocess", *PREFERRED},
    "base": ALL - {"preprocess"},
    "sft": {"sft", "ppo", "predict@sft", "predict@ppo", "score", "report"},
    "rm": PREFERRED,
    "ppo": {"ppo", "predict@ppo", "score", "report"},
    "predict": {"predict@base", "predict@sft", "predict@ppo", "score", "report"},
    "score": {"score", "report"},
    "report": {"report"},
}

# No stage reads any of these: editing one runs nothing again.
IDLE = (
    "README.md",
    "Makefile",
    "pyproject.toml",
    "tests/test_dvc.py",
    "data/README.md",
    "data/sample/README.md",
    "data/sample/generate.py",
    "profiles/covid-tiny.yaml",
    "stages/results.py",
    "stages/profile.py",
    "stages/verify.py",
    "stages/page/README.md",
)


def flat(section: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


PARAMETERS = dict(flat(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))))
CODE = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "stages").rglob("*")
    if path.is_file() and (path.suffix == ".py" or path.parent == ROOT / PAGE)
)


# ----------------------------------------------------------------------------------------------------------------------
# A checkout in which every stage has run


@pytest.fixture(scope="module")
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
                path = Path(out.fs_path)
                file = path if path.suffix else path / "weights"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"made up: {out}\n")
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


def run(command: str, folder: Path) -> None:
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    """The folder's pipeline is the one that DVC means, and the stages run with the Python of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        patch.delenv("DVC_STAGE", raising=False)
        patch.delenv("COVID_DOCTOR_WORK", raising=False)
        patch.chdir(folder)
        yield


@contextmanager
def edited(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


def stale(repo: Any) -> set[str]:
    """The stages whose own command, parameters or files are not those of dvc.lock."""
    with repo.lock:
        return {stage.name for stage in repo.index.stages if stage.changed_stage() or stage.changed_deps()}


def run_again(repo: Any, root: Path) -> set[str]:
    """The stages that `dvc repro` would run: a changed out makes those stale that read it.

    The first stage is run, to see which of its outs change; of any other every out counts as changed.
    """
    stages = {stage.name: stage for stage in repo.index.stages}
    found = stale(repo)
    changed = [Path(out.fs_path) for name in found - {"preprocess"} for out in stages[name].outs]
    if "preprocess" in found:
        outs = [Path(out.fs_path) for out in stages["preprocess"].outs]
        before = {out: out.read_bytes() for out in outs}
        with at_work_in(root):
            run(stages["preprocess"].cmd, root)
        changed += [out for out in outs if out.read_bytes() != before[out]]
        for out in outs:
            out.write_bytes(before[out])
    while changed:
        out = changed.pop()
        for name in stages.keys() - found:
            if any(Path(dep.fs_path) == out for dep in stages[name].deps):
                found.add(name)
                changed += [Path(out.fs_path) for out in stages[name].outs]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Only what changed


@pytest.mark.parametrize("key", PARAMETERS)
def test_parameter(key: str, repo: Any, finished: Path) -> None:
    expected = [stages for name, stages in RUN_AGAIN.items() if key == name or key.startswith(f"{name}.")]
    assert len(expected) == 1, f"name {key} in the table RUN_AGAIN"

    document = yaml.safe_load((finished / "params.yaml").read_text(encoding="utf-8"))
    *above, last = key.split(".")
    section = document
    for name in above:
        section = section[name]
    section[last] = other_value(key, section[last], finished)
    with edited(finished / "params.yaml", yaml.safe_dump(document).encode()):
        # dvc.yaml is filled from these two, so DVC has to read it anew.
        in_the_graph = f"${{{key}}}" in (finished / "dvc.yaml").read_text(encoding="utf-8")
        assert run_again(type(repo)(str(finished)) if in_the_graph else repo, finished) == expected[0]


def other_value(key: str, value: Any, root: Path) -> Any:
    """A value that this key does not have; for a path, data that is not the same."""
    if key in ("data.dialogues", "data.preferences"):
        for file in (root / "data/sample").glob("*.json"):
            (root / "data/other").mkdir(exist_ok=True)
            text = file.read_text(encoding="utf-8")
            (root / "data/other" / file.name).write_text(text.replace("。", "！"), encoding="utf-8")
        return value.replace("data/sample", "data/other")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 or 1
    return f"{value} and another"


@functools.cache
def used_by(module: str) -> list[Path]:
    return imports.closure(ROOT / f"stages/{module}.py")


@pytest.mark.parametrize("file", CODE)
def test_code(file: str, repo: Any, finished: Path) -> None:
    users = {name for name, module in MODULES.items() if Path(file) in used_by(module)}
    if Path(file).suffix != ".py":
        users = {"report"}
    with edited(finished / file, (finished / file).read_bytes() + b"\n"):
        assert stale(repo) == users


@pytest.mark.parametrize("file", IDLE)
def test_what_no_stage_reads(file: str, repo: Any, finished: Path) -> None:
    with edited(finished / file, b"another text\n"):
        assert stale(repo) == set()


# ----------------------------------------------------------------------------------------------------------------------
# Results are kept and handed on


def cached_files(root: Path, repo: Any) -> dict[str, bytes]:
    found = {}
    for out in repo.index.outs:
        path = root / out.def_path
        if out.use_cache:
            for file in [path] if path.is_file() else path.rglob("*"):
                found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


def test_a_colleague_gets_every_result_without_training(repo: Any, finished: Path, clone: Path) -> None:
    with type(repo)(str(clone)) as theirs:
        assert cached_files(clone, theirs) == {}
        theirs.pull()
        assert cached_files(clone, theirs) == cached_files(finished, repo)
        assert theirs.status() == {}


def test_repro_with_pull_runs_nothing(repo: Any, finished: Path, clone: Path) -> None:
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        assert theirs.reproduce(pull=True) == []
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
    document["data"]["preferences_validate_ratio"] = 0.3  # preprocess runs, and then rm
    document["rm"]["lora"]["r"] = 0  # which fails
    with at_work_in(clone), type(repo)(str(clone)) as theirs:
        theirs.pull()
        before = cached_files(clone, theirs)
        lock = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        parameters.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ReproductionError):
            theirs.reproduce()
        assert "error: params.yaml: `rm.lora`: r must be at least 1" in capfd.readouterr().err
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
        "reports/metrics/data.json",
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
