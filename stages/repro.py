"""Run the stages whose inputs changed, those that do not wait for each other side by side: `make repro`.

`dvc repro` gives the same bytes, one stage after the other. DVC leaves it to its users to start it several times
(https://dvc.org/doc/command-reference/repro#parallel-stage-execution); this does so.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Annotated

import typer

from stages import launch
from stages.models.base_model import ModelConfig
from stages.runtime import params, processes, resume
from stages.runtime.command import command

AT_MOST = 2
"""Side by side by default: the graph never has more than two long stages at once, and each holds a model in memory."""
POLL = 0.1
"""Seconds between two looks at the stages that run."""


@command
def main(
    jobs: Annotated[int | None, typer.Option(min=1, help="stages at a time; by default what the cores allow")] = None,
) -> None:
    """Reproduce the pipeline; the first stage that fails stops the others, which resume when it is mended."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side_by_side = jobs or fitting(cores)
    waiting = stale() if side_by_side > 1 else {}
    if len(waiting) < 2:
        raise SystemExit(subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode)
    raise SystemExit(run(waiting, side_by_side))


def fitting(cores: int) -> int:
    """Stages that fit beside each other: one, unless each takes a fixed number of a CPU's threads."""
    threads = params.load(resume.checkout() / "params.yaml", "model", ModelConfig).cpu_threads
    if threads is None or processes.NVIDIA.exists() or launch.launcher()[0]:
        return 1
    return max(1, min(AT_MOST, cores // threads))


def stale() -> dict[str, set[str]]:
    """Each stage of dvc.yaml that changed or comes after one, in its order → those among them that it waits for.

    Nothing where DVC can't say (another one holds its lock, a file is broken): `dvc repro` then tells why.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import ancestors

    with contextlib.suppress(DvcException), Repo(str(resume.checkout())) as repo:
        graph = repo.index.graph  # an edge leads from a stage to one that it needs
        changed = repo.status()
        late = {found for stage in graph if stage.addressing in changed for found in {stage, *ancestors(graph, stage)}}
        # `make controls` has a pipeline of its own beside it while it runs
        order = [stage for stage in repo.index.stages if stage in late and stage.path_in_repo == "dvc.yaml"]
        return {stage.addressing: {each.addressing for each in graph[stage] if each in late} for stage in order}
    return {}


def run(waiting: Mapping[str, set[str]], jobs: int) -> int:
    """Run the stages, at most `jobs` at a time, the first in the mapping first; the exit code of the first to fail."""
    order, sorter = list(waiting), TopologicalSorter(waiting)
    sorter.prepare()
    ready: list[str] = []
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as at Ctrl-C, with the stages
    try:
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=order.index)
            while ready and len(running) < jobs:
                name, line = ready.pop(0), min(set(range(jobs)) - {line for _, line in running.values()})
                running[name] = start(name, line), line
            time.sleep(POLL)
            for name, (process, _) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        return process.returncode
                    sorter.done(name)
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def start(name: str, line: int) -> subprocess.Popen[bytes]:
    """Start `dvc` for one stage, its progress bar on a terminal's line of its own."""
    environment = os.environ | {"TQDM_POSITION": str(line)}
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name], env=environment
    )


if __name__ == "__main__":
    typer.run(main)
