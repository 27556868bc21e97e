"""A committed run reaches a stranger: pulled from a plain web host, and read from another repository."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import at_work_in, git
from imports import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # in dependencies of DVC


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(finished: Path) -> Iterator[str]:
    """The address at which a server that knows nothing of DVC serves the store, read-only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(finished / "store")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stranger_pulls_from_a_plain_web_host(clone: Path, web: str) -> None:
    """All but the report's page, which no cache holds: `dvc repro` makes it anew."""
    (clone / ".dvc/config").write_text(f"[core]\n    remote = public\n['remote \"public\"']\n    url = {web}\n")
    from dvc.repo import Repo

    with at_work_in(clone), Repo(str(clone)) as theirs:
        theirs.pull()
        cached = {out.def_path for out in theirs.index.outs if out.use_cache}
        assert cached and all((clone / path).exists() for path in cached)
        assert set(theirs.status()) <= {"report"}


def test_another_repository_reads_a_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dvc.api

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    answers = dvc.api.read("reports/answers/ppo.jsonl", repo=str(finished), rev="HEAD")
    assert answers == (finished / "reports/answers/ppo.jsonl").read_text(encoding="utf-8")
    assert dvc.api.params_show(repo=str(finished))["seed"] == 42


def test_models_are_artifacts(finished: Path, tmp_path: Path) -> None:
    """A version of one is a Git tag, as `gto register` makes it."""
    from dvc.repo.artifacts import Artifacts

    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    assert {name: each["path"] for name, each in document["artifacts"].items()} == {
        name: f"models/{name}" for name in ("sft", "rm", "ppo")
    }
    git(finished, "tag", "--annotate", "--message", "registered", "ppo@v0.1.0")
    with at_work_in(tmp_path):
        Artifacts.get(str(finished), "ppo", version="v0.1.0", out=str(tmp_path / "got"))
    assert [file.name for file in (tmp_path / "got").iterdir()] == ["weights"]
