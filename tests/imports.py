"""Which files of this project a module uses: a walk along its imports, without running any of them.

DVC does not follow imports; tests hold a stage's `deps` in dvc.yaml against this walk.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "stages"


def closure(module: Path, root: Path = ROOT) -> list[Path]:
    """The module's file and every project file that it imports, directly or not, anywhere in its code; sorted.

    Args:
        module: a file below `root`.

    Returns:
        Paths relative to `root`. A package's `__init__.py` stands for the package; one that holds no code is left
        out, since it changes nothing.
    """
    found: set[Path] = set()
    waiting = [module.resolve()]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        waiting += _imported(file, root)
    return sorted(file.relative_to(root) for file in found if file.name != "__init__.py" or _has_code(file))


def _imported(file: Path, root: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    files: list[Path] = []
    for name in sorted(names):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        for depth in range(1, len(parts) + 1):
            path = root.joinpath(*parts[:depth])
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file():
                    files.append(candidate)
    return files


def _has_code(file: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf-8")).body)
