"""dvc.lock → which parameters, code and data made a file, and whether all of it comes from one finished run."""

from collections.abc import Iterator, Mapping
from typing import Any


class Lock:
    """What DVC recorded of the stages at a revision."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """
        Args:
            document: the content of dvc.lock, format 2.
        """
        self._stages: Mapping[str, Any] = document.get("stages") or {}
        self._maker = {out["path"]: name for name, stage in self._stages.items() for out in stage.get("outs", ())}

    def maker(self, path: str) -> str | None:
        """The stage that writes `path`, or a folder that holds it; None for a file of Git's."""
        parts = path.split("/")
        folders = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((self._maker[folder] for folder in folders if folder in self._maker), None)

    def upstream(self, *stages: str) -> list[str]:
        """The stages and all that they depend on, the earliest first."""
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in found:
                for dep in self._stages[name].get("deps", ()):
                    above = self.maker(dep["path"])
                    if above:
                        visit(above)
                found[name] = None

        for name in stages:
            visit(name)
        return list(found)

    def hash_of(self, path: str) -> str:
        """MD5 of an out as its stage left it."""
        return next(out["md5"] for out in self._stages[self._maker[path]]["outs"] if out["path"] == path)

    def sections(self, stages: list[str]) -> dict[str, Any]:
        """The sections and keys (`data.seed`) of params.yaml that these stages read, as they read them."""
        return dict(pair for name in stages for pair in self._params(name))

    def sources(self, stages: list[str]) -> dict[str, str]:
        """The code and the data that these stages read and that no stage writes: path → MD5."""
        found = {}
        for name in stages:
            for dep in self._stages[name].get("deps", ()):
                if self.maker(dep["path"]) is None:
                    found[dep["path"]] = dep["md5"]
        return found

    def unfinished(self, stages: list[str], params: Mapping[str, Any]) -> str | None:
        """The first stage that read other parameters than `params`, or another input than there is now."""
        for name in stages:
            if any(_at(params, key) != value for key, value in self._params(name)):
                return name
            for dep in self._stages[name].get("deps", ()):
                if dep["path"] in self._maker and dep["md5"] != self.hash_of(dep["path"]):
                    return name
        return None

    def _params(self, name: str) -> Iterator[tuple[str, Any]]:
        for sections in self._stages[name].get("params", {}).values():
            yield from sections.items()


def _at(params: Mapping[str, Any], key: str) -> Any:
    """What is at the dotted key; None where nothing is."""
    found: Any = params
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
