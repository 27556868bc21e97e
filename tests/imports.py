"""Which files of this project a module uses: a walk along its imports, without running any of them.

DVC does not follow imports, so dvc.yaml lists the rooms (folders of stages/) that a stage uses; the tests hold those
lists against this walk.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"stages", "controls"}


def closure(module: Path, root: Path = ROOT) -> list[Path]:
    """The module's file and every project file that it imports, directly or not, anywhere in its code; sorted.

    Args:
        module: a file below `root`.

    Returns:
        Paths relative to `root`. An `__init__.py` without code is left out: it changes nothing.
    """
    found: set[Path] = set()
    waiting = [module.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [imported for name in names(ast.walk(tree(file))) for imported in files(name, root)]
    return sorted(file.relative_to(root) for file in found if file.name != "__init__.py" or _has_code(file))


def loaded_with(module: Path, root: Path = ROOT) -> set[str]:
    """The top-level packages outside of this project that Python loads when it imports the module.

    Imports inside functions and those for type checkers do not count.
    """
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = [module.resolve()]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in names(_run_on_import(tree(file).body)):
            waiting += files(name, root)
            found.add(name.partition(".")[0])
    return found - PACKAGES


def names(nodes: Iterator[ast.AST]) -> set[str]:
    """The dotted names in these import statements; `from a import b` may mean the module `a.b`, so it gives both.

    Raises:
        AssertionError: an import is relative, which the walk does not follow.
    """
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"line {node.lineno}: a relative import, which nothing here follows"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def files(name: str, root: Path = ROOT) -> list[Path]:
    """The project's files that Python runs to import the dotted name: the module and the packages around it."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return []
    paths = [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def _run_on_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _run_on_import(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _run_on_import(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _run_on_import(handler.body)
        else:
            yield node


def _has_code(file: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in tree(file).body)
