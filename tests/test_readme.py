"""What the documents tell people to type exists: make targets, profiles, commands, parameters, files."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import run_readme
import yaml

from stages import results

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "README.zh.md", "CONTRIBUTING.md", "data/README.md"]


def lines(document: str) -> list[str]:
    """The command lines of the fenced and the inline code of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    inline = re.findall(r"`((?:make|dvc|python -m) [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()] + inline


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_and_profiles_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in lines(document):
        for target, name in re.findall(r"\bmake ([a-z-]+)(?: NAME=([\w.-]+))?", line):
            assert target in targets, line
            assert not name or (ROOT / "profiles" / f"{name}.yaml").is_file(), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_parameters_and_stages_exist(document):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for line in lines(document):
        for module in re.findall(r"python -m (stages\.\w+)", line):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), line
        for setting in re.findall(r"-S '?([\w.]+)=", line):
            value = params
            for key in setting.split("."):
                assert key in value, line
                value = value[key]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_dvc_takes_the_arguments(document):
    from dvc.cli import parse_args

    seen = 0
    for line in lines(document):
        for command in re.split(r"&&|;", line):
            if "STAGE" in command:
                continue
            words = shlex.split(command)
            if "dvc" in words:
                parse_args([w for w in words[words.index("dvc") + 1 :] if "…" not in w])
                seen += 1
    assert seen or document == "CONTRIBUTING.md"


def test_both_readmes_show_the_same_commands_and_links():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert sorted(lines("README.md")) == sorted(lines("README.zh.md"))
    shown = [
        [block for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M) if not language]
        for text in (english, chinese)
    ]
    assert shown[0] == shown[1]
    assert shown[0][0] == results.table(ROOT / "reports" / "metrics.json")
    measured = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))
    heads = re.findall(r"^reports/metrics\.json +(\w+)\.([\w-]+) +(-?[\d.]+)", english, re.M)
    assert heads and all(measured[model][name] == float(value) for model, name, value in heads)
    for text in (english, chinese):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), target
        assert "no medical advice" in text or "不提供任何医疗建议" in text


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in a dependency of DVC
@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_the_graph_is_that_of_dvc(document):
    """Less the edges that follow from others, which would hide the rest."""
    import networkx
    from dvc.repo import Repo

    text = (ROOT / document).read_text(encoding="utf-8")
    [drawn] = re.findall(r"^```mermaid\nflowchart LR\n(.*?)^```", text, re.S | re.M)
    edges = set()
    for line in drawn.splitlines():
        names = [re.sub(r'.*\["(.*)"\]', r"\1", part.strip()) for part in line.split("-->")]
        edges |= set(itertools.pairwise(names))
    with Repo(str(ROOT)) as repo:
        needs = networkx.DiGraph([(below.addressing, above.addressing) for above, below in repo.index.graph.edges])
    assert edges == set(networkx.transitive_reduction(needs).edges)


@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_every_file_of_the_code_has_its_line(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(stages/[\w/.]+)` \|", text, re.M)
    there = [*(ROOT / "stages").glob("[!_]*.py"), *(ROOT / "stages" / "core").glob("[!_]*.py")]
    there += [file.parent for file in (ROOT / "stages" / "core").glob("*/__init__.py")]
    names = [file.relative_to(ROOT).as_posix() + ("/" if file.is_dir() else "") for file in there]
    assert sorted(listed) == sorted(names)


def test_every_line_that_is_not_run_is_in_the_readme():
    """What `make docs` leaves out, with a reason, must still be there to be left out."""
    blocks = run_readme.blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    commands = [command for block in blocks for command in block.commands]
    assert [s for s in run_readme.SKIPPED if not any(command.startswith(s) for command in commands)] == []
    assert all(block.commands for block in blocks)
