"""What the documents tell people to type exists: make targets, profiles, commands, parameters, files, links."""

import itertools
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import parameters
import pytest
import run_readme
from imports import ROOT

pytestmark = pytest.mark.slow

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data/README.md"]
    if path.name != "CHANGELOG.md"  # which tells of what is gone
)
each_document = pytest.mark.parametrize("document", DOCUMENTS)


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def lines(document: str) -> list[str]:
    """The commands in the fenced and the inline code of a document."""
    fenced = [command for block in run_readme.blocks(text(document)) for command in block.commands]
    return fenced + re.findall(r"`((?:make|dvc|python -m) [^`\n]+)`", prose(document))


def prose(document: str) -> str:
    return re.sub(r"^```.*?^```$", "", text(document), flags=re.S | re.M)


@each_document
def test_make_targets_and_profiles_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in lines(document):
        for target in re.findall(r"\bmake ([a-z][a-z0-9-]*)", line):
            assert target in targets, line
        for name in re.findall(r"\bmake profile NAME=([\w.-]+)", line):
            made = any("make import" in other and f"NAME={name}" in other for other in lines(document))
            assert made or (ROOT / "profiles" / f"{name}.yaml").is_file(), line


@each_document
def test_commands_and_parameters_exist(document: str) -> None:
    known = dict(parameters.flat(parameters.document()))
    for line in lines(document):
        for module in re.findall(r"python -m ((?:stages|benchmarks)[\w.]+)", line):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), line
        for setting in re.findall(r"-S '?([\w.]+)=", line):
            assert setting in known, line


@each_document
def test_dvc_takes_the_arguments(document: str) -> None:
    from dvc.cli import parse_args

    for line in lines(document):
        for command in [] if "'" in line else re.split(r"&&|;|\|", line):  # quoted, it is another shell's
            words = shlex.split(command)
            mention = words[-2:-1] == ["dvc"]  # of a command, by its name alone
            if "dvc" in words and not mention and not re.search("[A-Z]{4}|…", command):  # a placeholder is not for DVC
                parse_args(words[words.index("dvc") + 1 :])


@each_document
def test_files_and_links_exist(document: str) -> None:
    tracked = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if ".venv" not in path.parts}
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text(document)):
        assert ((ROOT / document).parent / target).exists(), f"{target}: the link leads nowhere"
    for path in re.findall(r"`((?:stages|tests|profiles|benchmarks|docs|\.dvc|\.ci)/[\w/.-]*)`", prose(document)):
        assert path.rstrip("/") in tracked, f"{path} is not there"


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in a dependency of DVC
@each_document
def test_a_drawn_graph_is_that_of_dvc(document: str) -> None:
    """A mermaid block with the stages in it, less the edges that follow from others, which would hide the rest."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        needs = networkx.DiGraph([(below.addressing, above.addressing) for above, below in repo.index.graph.edges])
    for drawn in re.findall(r"^```mermaid\n(.*?)^```", text(document), re.S | re.M):
        edges: set[tuple[str, str]] = set()
        for line in drawn.splitlines():
            names = [re.sub(r'.*\["(.*)"\]', r"\1", part.strip()) for part in line.split("-->")]
            edges |= set(itertools.pairwise(names))
        if {"preprocess", "ppo"} <= {name for edge in edges for name in edge}:
            assert edges == set(networkx.transitive_reduction(needs).edges)


def test_no_reason_to_skip_is_left_over() -> None:
    commands = [
        command for document in run_readme.documents() for command in lines(document.relative_to(ROOT).as_posix())
    ]
    assert [start for start in run_readme.SKIPPED if not any(c.startswith(start) for c in commands)] == []


# ----------------------------------------------------------------------------------------------------------------------
# How `make docs` reads and runs them


def test_blocks() -> None:
    found = run_readme.blocks(
        "```sh\nmake repro  # a comment\n# another\ndvc exp run \\\n    --queue\n```\n\n```\nshown 1.5\n```\n\n"
        "`make help` prints\n\n```\ntargets\n```\n\n```text\nno output\n```\n"
    )
    assert found == [
        run_readme.Block(["make repro", "dvc exp run --queue"], ["shown 1.5"]),
        run_readme.Block(["make help"], ["targets"]),
    ]
    assert run_readme.shape("a  0.12 -3 x") == run_readme.shape("a 7 3.5  x") == "a # # x"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[run_readme.Reader]:
    reader = run_readme.Reader(tmp_path / "readme")
    reader.clone.mkdir(parents=True)
    monkeypatch.setattr(run_readme, "LIMIT", 2)
    yield reader
    reader.leave()


def test_a_line_that_fails_or_hangs_is_told(
    reader: run_readme.Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "document.md"
    document.write_text(
        "```sh\necho yes 1\nexit 3\nsleep 60\nsleep 60 & echo left behind\n```\n\n```\nyes 2\nno\n```\n"
    )
    assert run_readme.follow(reader, document) == 3
    said = capsys.readouterr().out
    assert "ok: echo yes 1\nFAILED, exit code 3: exit 3\n" in said
    assert "FAILED, not done after 2 s: sleep 60\n" in said
    assert "ok: sleep 60 & echo left behind\n" in said  # its output is a file, so nothing waits for it
    assert said.endswith("FAILED, not printed by the lines above: no\n")


def test_nothing_is_left(reader: run_readme.Reader, tmp_path: Path) -> None:
    """Of files as of processes."""
    reader.type(f"(sleep 3; touch {tmp_path}/late) &")
    assert reader.leave() == ""
    assert not reader.folder.exists()
    time.sleep(3.5)
    assert not (tmp_path / "late").exists()
