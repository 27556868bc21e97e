"""What the stages share: pure rules, maths and the ways between disk and module. No flow lives here.

Importing this package lets the `Auto…` classes of transformers load ChatGLM-6B. It costs nothing before somebody
imports transformers: a stage's `--help` answers without.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pkgutil import resolve_name
from types import ModuleType

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
"""Every `Auto…` class goes through this module to learn what a folder holds."""


class _AfterAutoConfig(MetaPathFinder):
    """Registers ChatGLM's configuration once transformers' table of configurations exists."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AUTO_CONFIG:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            _register()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    # By name: a stage that loads models imports ChatGLM openly (base_model.py), and the others do not depend on it.
    resolve_name("stages.core.chatglm:register_config")()


if AUTO_CONFIG in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterAutoConfig())
