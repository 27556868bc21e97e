"""dvc.yaml tells the truth: what a stage imports, reads, writes and takes as parameters is what it declares there."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imports
import parameters
import pytest
import yaml
from imports import ROOT

# Every stage of the graph and the module that it runs. A stage that is missing here fails `test_all_stages`.
MODULES = {
    "preprocess": "preprocess",
    "base": "base",
    "sft": "sft",
    "rm": "rm",
    "ppo": "ppo",
    "predict@base": "predict",
    "predict@sft": "predict",
    "predict@ppo": "predict",
    "evaluate": "evaluate",
    "report": "report",
}
PAGE = "reports/index.html"
"""It is kept nowhere: five megabytes that the report makes anew in seconds."""
each_stage = pytest.mark.parametrize("name", MODULES)
each_module = pytest.mark.parametrize("module", sorted(set(MODULES.values())))


@pytest.fixture(scope="module")
def graph() -> dict[str, Any]:
    """The stages as DVC itself reads them from dvc.yaml."""
    from dvc.dvcfile import load_file
    from dvc.repo import Repo

    return {stage.name: stage for stage in load_file(Repo(str(ROOT)), str(ROOT / "dvc.yaml")).stages.values()}


def deps(stage: Any) -> set[str]:
    from dvc.dependency import ParamsDependency

    return {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}


def code_of(module: str) -> list[Path]:
    return imports.closure(ROOT / "stages" / f"{module}.py")


def nodes_of(module: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node of the syntax trees of a stage's code, with the file and line where it stands."""
    for file in code_of(module):
        for node in ast.walk(imports.tree(ROOT / file)):
            yield f"{file}, line {getattr(node, 'lineno', 0)}", node


def test_all_stages(graph: dict[str, Any]) -> None:
    ran = {name: re.findall(r"^python -m stages\.(?:launch )?(\w+)", stage.cmd) for name, stage in graph.items()}
    assert ran == {name: [module] for name, module in MODULES.items()}


@each_stage
def test_rooms(graph: dict[str, Any], name: str) -> None:
    """Every file that a stage imports lies in a room that it declares; every room that it declares, it imports from."""
    declared = {dep for dep in deps(graph[name]) if dep.startswith("stages/")}
    used = {file.as_posix() if len(file.parts) == 2 else "/".join(file.parts[:2]) for file in code_of(MODULES[name])}
    assert declared == used, f"add to the deps of {name}: {used - declared}; take out: {declared - used}"
    assert all((ROOT / dep).exists() for dep in declared)


@each_module
def test_no_import_that_the_walk_can_not_see(module: str) -> None:
    for place, node in nodes_of(module):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("__import__", "import_module", "importlib.import_module"), place


@each_stage
def test_parameters(graph: dict[str, Any], name: str) -> None:
    declared = set()
    for dep in graph[name].params:
        assert dep.def_path == "params.yaml"
        declared |= set(dep.params)
    if name == "report":  # the page prints params.yaml whole
        assert not declared and "params.yaml" in deps(graph[name])
    else:
        assert declared == sections(MODULES[name])


def sections(module: str) -> set[str]:
    """The sections in `params.load(…, "<section>", …)`, in a stage's module or any that it imports."""
    found = set()
    for place, node in nodes_of(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.load":
            section = node.args[1]
            assert isinstance(section, ast.Constant) and isinstance(section.value, str), (
                f"{place}: name the section as a literal"
            )
            found.add(section.value)
    return found


@each_stage
def test_command(graph: dict[str, Any], name: str) -> None:
    """The paths that a stage is given are those that it declares, each one or the folder that it lies in.

    They stand in its command, but for the user's own data: `preprocess` finds those in its section of params.yaml.
    """
    stage = graph[name]
    given = {
        word for word in shlex.split(stage.cmd) if word.split("/")[0] in ("data", "models", "reports", "params.yaml")
    }
    if name == "preprocess":
        data = parameters.document()["data"]
        given |= {data["dialogues"], data["preferences"]}
    declared = {dep for dep in deps(stage) if not dep.startswith("stages/")} | {out.def_path for out in stage.outs}
    declared |= {dep.def_path for dep in stage.params}
    for word in given:
        assert any(path == word or path.startswith(f"{word}/") for path in declared), f"{word} is not declared"
    for path in declared:
        assert any(path == word or path.startswith(f"{word}/") for word in given), f"{path} is not given"


def test_no_parameter_reaches_a_shell() -> None:
    """DVC would paste its value into a shell line as it stands; only the names in a `foreach` may go there."""
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for name, entry in document["stages"].items():
        command = entry.get("do", entry)["cmd"]
        assert not re.findall(r"(?<!\\)\$\{(?!key\}|item\.)[^}]*\}", command), f"{name}: {command}"


@each_module
def test_paths_stand_in_the_graph_only(module: str) -> None:
    allowed = set()
    for place, node in nodes_of(module):
        if isinstance(node, ast.Expr):
            allowed.add(node.value)  # a docstring
        elif isinstance(node, ast.AnnAssign):
            allowed.add(node.value)  # a parameter's default, which params.yaml repeats
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in allowed:
            assert not re.search(r"(?<![\w./])(data/(sample|processed)|models/|reports/|profiles/)", node.value), (
                f"{place}: a path belongs in dvc.yaml"
            )


@each_stage
def test_run_cache_is_on(graph: dict[str, Any], name: str) -> None:
    """A plain out outside of DVC's cache turns the run cache off: what trains must not have one."""
    plain = [out.def_path for out in graph[name].outs if not out.use_cache and not out.metric and not out.plot]
    assert not plain or name == "report"
    assert not [out.def_path for out in graph[name].outs if out.persist]


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in a dependency of DVC
def test_plots() -> None:
    """`dvc plots show` draws what dvc.yaml lists, each once, from columns that are there."""
    from dvc.render.match import match_defs_renderers
    from dvc.repo import Repo

    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    listed = [name for plot in document["plots"] for name in plot]
    with Repo(str(ROOT)) as repo:
        drawn = match_defs_renderers(repo.plots.show(), templates_dir=repo.plots.templates_dir)
    assert [plot.renderer.name for plot in drawn] == listed
    for plot in drawn:
        name, rows = plot.renderer.name, plot.renderer.datapoints
        assert rows and not plot.source_errors and not plot.definition_errors, name
        assert re.fullmatch(r"[\w ]+", name), f"{name}: DVC writes the name into a script as it stands"
        for encoding in encodings(plot.renderer.get_filled_template()):
            column, order = encoding["field"], encoding.get("sort")
            assert column in rows[0], f"{name}: no column {column}"
            assert not order or {row[column] for row in rows} <= set(order), (
                f"{name}: {column}"
            )  # a base that was not trained has no loss


def encodings(specification: Any) -> Iterator[dict[str, Any]]:
    """Every part of a plot's specification that names a column."""
    if isinstance(specification, dict) and "field" in specification:
        yield specification
    elif isinstance(specification, dict | list):
        for part in specification.values() if isinstance(specification, dict) else specification:
            yield from encodings(part)


@each_stage
def test_outs_are_ignored_or_tracked(graph: dict[str, Any], name: str) -> None:
    """By .gitignore lines written by hand: those that DVC adds can get lost when a later stage fails."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a Git checkout")
    tracked = set(git("ls-files"))
    for out in graph[name].outs:
        folder = "" if Path(out.def_path).suffix else "/"  # it need not be there for Git to know that it is one
        rule = git("check-ignore", "--verbose", "--no-index", f"{out.def_path}{folder}")
        if out.use_cache or out.def_path == PAGE:
            assert rule, f"{out.def_path}: add it to .gitignore"
            assert rule[0].split(":")[0] in tracked, f"{out.def_path}: a tracked .gitignore must name it, not {rule[0]}"
            assert not tracked & {out.def_path}, f"{out.def_path}: DVC's, but Git tracks it"
        else:
            assert not rule, f"{out.def_path}: is not in DVC's cache, so Git must track it: {rule[0]}"
            # Before the first run is committed there is nothing to track.
            below = [file for file in tracked if file == out.def_path or file.startswith(f"{out.def_path}/")]
            assert below or "dvc.lock" not in tracked, f"{out.def_path}: git add it"


def git(*arguments: str) -> list[str]:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, text=True, capture_output=True, check=False
    ).stdout.splitlines()
