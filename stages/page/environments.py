"""What the stages ran on → one compact object for Git, and a warning where they did not run on the same."""

from collections.abc import Mapping
from typing import Any

from stages.page.i18n import Sentence
from stages.page.tables import flat


def compact(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each environment once, with the stages that ran in it."""
    groups: list[dict[str, Any]] = []
    for stage, environment in found.items():
        known = next((group for group in groups if group["environment"] == environment), None)
        if known:
            known["stages"].append(stage)
        else:
            groups.append({"stages": [stage], "environment": environment})
    return {"environments": groups}


def warning(found: Mapping[str, Mapping[str, Any]]) -> Sentence | None:
    """Which parts of the environment differ between stages; None where they all ran in one."""
    values: dict[str, set[str]] = {}
    for environment in found.values():
        for key, value in flat(dict(environment)):
            values.setdefault(key, set()).add(value)
    differing = [f"{key} ({', '.join(sorted(each))})" for key, each in values.items() if len(each) > 1]
    return Sentence("run.mixed", {"parts": "; ".join(differing)}) if differing else None
