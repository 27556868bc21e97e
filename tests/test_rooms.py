"""The rooms of stages/ and who may import whom, held against the imports; names and sizes of files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import imports
import pytest
from imports import ROOT
from test_graph import MODULES

STAGES = ROOT / "stages"

# A room → the rooms whose code its own may import.
MAY_IMPORT = {
    "runtime": set(),
    "metrics": set(),
    "text": {"runtime"},
    "importing": {"runtime", "text"},
    "models": {"runtime", "text"},
    "training": {"runtime", "text", "models"},
    "preference": {"runtime", "text", "models", "training"},
    "generation": {"runtime", "models"},
    "rl": {"runtime", "text", "models", "generation"},
    "scoring": {"runtime", "text", "models", "metrics"},
    "page": {"runtime", "metrics"},
    "preflight": {"runtime", "text", "models"},
    "serving": {"runtime", "text", "models", "generation", "rl", "metrics"},
}
SERVING = {"chat", "export"}
"""The commands that serve a trained model: they alone use the room `serving`."""
STAGES_OF_THE_GRAPH = set(MODULES.values())
BUILT_ON = {"parameters", "check"}
"""The tools that other tools build on: the list of all sections, and what is wrong with them."""
LIGHT = {"text", "metrics", "page"}
"""The rooms that never see a model, and so need none of these:"""
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors", "bitsandbytes"}
EMPTY_NAMES = {"core", "utils", "util", "misc", "helpers", "common", "lib", "extras", "shared", "stuff"}

COMMANDS = sorted(file.stem for file in STAGES.glob("[!_]*.py"))
FILES = sorted(file.relative_to(ROOT) for file in STAGES.rglob("*.py"))
each_room = pytest.mark.parametrize("room", MAY_IMPORT)
each_command = pytest.mark.parametrize("command", COMMANDS)


def room_of(file: Path) -> str:
    """The room that a file below stages/ lies in, or the name of the command that it is."""
    return file.parts[1].removesuffix(".py")


def imported_by(file: Path) -> set[Path]:
    """The project's files that one file itself imports, anywhere in its code."""
    found = {path for name in imports.names(ast.walk(imports.tree(ROOT / file))) for path in imports.files(name)}
    return {path.relative_to(ROOT) for path in found} - {file, Path("stages/__init__.py")}


def packages_of(room: str) -> set[str]:
    """The packages outside of this project that a room imports, anywhere in its code."""
    nodes = [node for file in (STAGES / room).rglob("*.py") for node in ast.walk(imports.tree(file))]
    return {name.partition(".")[0] for name in imports.names(iter(nodes))} - {"stages"}


def test_every_folder_is_a_room() -> None:
    assert {file.parent.name for file in STAGES.glob("*/__init__.py")} == set(MAY_IMPORT)
    assert {folder.name for folder in STAGES.iterdir() if folder.is_dir()} - {"__pycache__"} == set(MAY_IMPORT)


@each_room
def test_imports_go_one_way(room: str) -> None:
    for file in (file for file in FILES if len(file.parts) > 2 and room_of(file) == room):
        for imported in imported_by(file):
            assert len(imported.parts) > 2, f"{file} imports a command, {imported}"
            assert room_of(imported) in MAY_IMPORT[room] | {room}, f"{file} imports {imported}"


def test_rooms_form_no_circle() -> None:
    """Each allowed room allows no more than its user does, so the table itself is a downward order."""
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [room for room in MAY_IMPORT if room not in order and MAY_IMPORT[room] <= set(order)]
        assert free, f"a circle among {set(MAY_IMPORT) - set(order)}"
        order += free


@each_room
def test_the_docstring_names_the_rooms(room: str) -> None:
    """Its first paragraph tells what lives there, its last one exactly the rooms that may be imported."""
    document = ast.get_docstring(imports.tree(STAGES / room / "__init__.py"))
    assert document
    what, *_, last = document.split("\n\n")
    assert len(what.split()) > 2 and last.startswith("Imports ")
    named = {other for other in MAY_IMPORT if re.search(rf"\b{other}\b", last)}
    assert named == MAY_IMPORT[room], "the docstring and the table MAY_IMPORT differ"


@each_command
def test_commands_import_rooms(command: str) -> None:
    """A stage of the graph imports no other command; the tools around it may, to read the stages' parameters."""
    for imported in imported_by(Path("stages", f"{command}.py")):
        if len(imported.parts) == 2:
            assert command not in STAGES_OF_THE_GRAPH, f"imports another command, {imported}"
        else:
            assert room_of(imported) != "serving" or command in SERVING, "serving is not for the stages of the graph"


@pytest.mark.parametrize("room", sorted(LIGHT))
def test_light_rooms_know_no_model(room: str) -> None:
    assert not packages_of(room) & HEAVY


@pytest.mark.parametrize("module", [*COMMANDS, "models/chatglm/convert"])
def test_help_loads_nothing_heavy(module: str) -> None:
    assert not imports.loaded_with(STAGES / f"{module}.py") & HEAVY


def test_help_answers_before_anything_heavy_is_loaded() -> None:
    """The same in a real process, for all commands at once: the walk above could miss a way to load something."""
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(f'stages.{name}')\n"
    code += f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code, *COMMANDS], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.split() == []


# ----------------------------------------------------------------------------------------------------------------------
# Names and sizes


@pytest.mark.parametrize("folder", ["stages", "tests", "benchmarks"])
def test_names_tell_something(folder: str) -> None:
    paths = [path for path in (ROOT / folder).rglob("*") if path.suffix in ("", ".py")]
    assert paths
    assert not [path for path in paths if path.stem.lower() in EMPTY_NAMES]


@pytest.mark.parametrize("folder", ["stages", "tests", "benchmarks"])
def test_a_file_can_be_read_at_one_sitting(folder: str) -> None:
    lengths = {str(file.relative_to(ROOT)): length(file) for file in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {file: lines for file, lines in lengths.items() if lines > 400} == {}


@pytest.mark.parametrize(("file", "most"), [("dvc.yaml", 230), ("README.md", 150), ("CONTRIBUTING.md", 200)])
def test_documents_stay_short(file: str, most: int) -> None:
    assert length(ROOT / file) <= most


def length(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())
