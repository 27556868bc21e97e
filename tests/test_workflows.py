"""The workflows for GitHub and the citation: they parse, and what they run is there."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import ROOT

WORKFLOWS = [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "docs/github-workflow.yml"]
each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)


def steps(file: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    return [step for job in document["jobs"].values() for step in job["steps"]]


@each_workflow
def test_each_step_uses_a_version_or_runs_something(file: Path) -> None:
    for step in steps(file):
        assert ("uses" in step) != ("run" in step), step
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4")), step


@each_workflow
def test_no_text_of_a_stranger_becomes_a_command(file: Path) -> None:
    """A branch's name or a title may hold shell code: it goes into the environment, not into the line."""
    for step in steps(file):
        assert "${{" not in step.get("run", ""), step


@each_workflow
def test_what_is_run_is_there(file: Path) -> None:
    from dvc.cli import parse_args

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in "\n".join(step.get("run", "") for step in steps(file)).splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line
        elif words[:1] == [".venv/bin/dvc"]:
            parse_args(words[1:])
        elif words and words[0].startswith("."):
            assert os.access(ROOT / words[0], os.X_OK), line


def test_tests_run_as_here() -> None:
    assert ".ci/run" in [step.get("run") for step in steps(ROOT / ".github/workflows/test.yml")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for file in WORKFLOWS:
        for step in steps(file):
            if "setup-python" in step.get("uses", ""):
                assert f">={step['with']['python-version']}" == project["requires-python"]


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    for theirs, ours in (("title", "name"), ("version", "version"), ("license", "license")):
        assert citation[theirs] == project[ours]
