"""All stages with a model that is trained from scratch: the COVID dialogues where they are, else the sample.

    python -m benchmarks.gpu.pipeline [--tiny]

The commands are those of dvc.yaml, without DVC: a stage that was done is not run again, and one that was cut off goes
on from its last checkpoint. The numbers to compare with are the CPU's, in README.md and docs/performance.md.
"""

import csv
import json
import os
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.session import Numbers, Session
from stages import profile
from stages.runtime import params, resume


def main(argv: list[str] | None = None) -> None:
    session = Session("pipeline", "all stages, with a model trained from scratch", argv)
    folder = session.folder / "pipeline"
    prepare(folder, chosen(session))
    commands = dict(stage_commands(params.read(resume.ROOT / "dvc.yaml")["stages"]))
    before = Path.cwd()
    os.environ["COVID_DOCTOR_WORK"] = str(folder / ".work")
    os.chdir(folder)
    try:
        for name, words in commands.items():
            session.run(name, lambda n=name, w=words: stage(session, n, w))
    finally:
        os.chdir(before)
    session.end(len(commands))


def chosen(session: Session) -> str:
    """The profile: the real dialogues and preferences, if both are here."""
    if session.tiny:
        return "smallest"
    sources = params.read(resume.ROOT / "profiles" / "covid-tiny.yaml")["data"]
    if all((resume.ROOT / path).exists() for path in sources.values()):
        return "covid-tiny"
    print("without the COVID dialogues and preferences (data/README.md) this is the profile from-scratch")
    return "from-scratch"


def prepare(folder: Path, name: str) -> None:
    """A folder in which the commands find data and parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").mkdir()
        for source in (resume.ROOT / "data").iterdir():
            if source.name != "processed":
                (folder / "data" / source.name).symlink_to(source)
    shutil.copy(resume.ROOT / "profiles" / "default.yaml", folder / "params.yaml")
    profile.apply(name, resume.ROOT / "profiles", folder / "params.yaml")


def stage_commands(stages: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each stage's module and its options, by the stage's name."""
    for name, entry in stages.items():
        for key, item in entry.get("foreach", {"": {}}).items():
            text = entry.get("do", entry)["cmd"].replace("${key}", key)
            for field, value in item.items():
                text = text.replace(f"${{item.{field}}}", value)
            words = [word for word in shlex.split(text)[2:] if word != "stages.launch"]
            yield f"{name}@{key}" if key else name, [words[0].removeprefix("stages."), *words[1:]]


def stage(session: Session, name: str, words: list[str]) -> Numbers:
    arguments, sys.argv = sys.argv, [words[0], *words[1:]]
    began = session.now()
    try:
        runpy.run_module(f"stages.{words[0]}", run_name="__main__", alter_sys=True)
    except SystemExit as done:
        if done.code:
            raise RuntimeError(f"{name} ended with {done.code}") from done
    finally:
        sys.argv = arguments
    return {"seconds": session.now() - began} | last_row(Path("reports") / name / "curve.csv") | headline(name)


def last_row(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as rows:
        last = list(csv.DictReader(rows))[-1:]
    return {key: float(row[key]) for row in last for key in ("loss", "score", "kl") if row.get(key)}


def headline(name: str) -> dict[str, float]:
    if name != "report":
        return {}
    found = json.loads(Path("reports/metrics.json").read_text(encoding="utf-8"))
    return {f"{model} ROUGE-L": found[model]["rouge-l"] for model in ("base", "sft", "ppo")}


if __name__ == "__main__":
    main()
