"""The experiments from the last commit: state, what was changed in each, six numbers, and their change.

python -m stages.experiments
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from stages.runtime.command import command
from stages.runtime.errors import UserError

WIDTH = 80
INDENT = 14
COLUMN = 11
HEADLINE = {
    "ppo.facts_named": "facts, %",
    "ppo.rouge-l": "ROUGE-L",
    "ppo.reward": "reward",
    "ppo.response_length": "length",
    "ppo.distinct-2": "distinct-2",
    "sft.facts_named": "facts, %",
    "sft.rouge-l": "ROUGE-L",
    "sft.response_length": "length",
}
"""Numbers of reports/metrics.json, the most telling first, with their headings; the first six of a run are shown."""
WORKSPACE = "workspace"


@command
def main() -> None:
    """Print the experiments, beside the commit that they start from."""
    line = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc exp show` failed: {done.stderr.strip()[-300:]}")
    print("\n".join(table(json.loads(done.stdout))))


def table(document: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of at most `WIDTH` columns.

    Args:
        document: what `dvc exp show --json` prints: the workspace, then the commit with its experiments.
    """
    workspace, commit, *_ = document
    parent = Measured(commit["data"])
    shown = [key for key in HEADLINE if key in parent.numbers][:6]
    yield f"{'':{INDENT}}" + "".join(f"{key.partition('.')[0]:>{COLUMN}}" for key in shown)
    yield f"{'':{INDENT}}" + "".join(f"{HEADLINE[key]:>{COLUMN}}" for key in shown)
    yield f"{commit['name'] or ''} {commit['rev'][:7]}".strip()
    yield numbers(parent, shown)
    ours = Measured(workspace["data"])
    if ours != parent:
        yield from row(WORKSPACE, "changed", ours, parent, shown)
    experiments = commit["experiments"] or []
    for experiment in experiments:
        latest = experiment["revs"][0]
        name, state = experiment["name"] or latest["rev"][:7], state_of(experiment)
        yield from row(name, state, Measured(latest["data"]), parent, shown)
    if not experiments:
        yield f"no experiment from this commit yet, e.g. dvc exp run -S {next(iter(parent.params), 'seed')}=…"


def state_of(experiment: Mapping[str, Any]) -> str:
    """`done`, `failed`, `queued` or `running`."""
    state = (experiment["executor"] or {}).get("state", "success")
    return "failed" if experiment["revs"][0]["error"] else "done" if state == "success" else str(state)


class Measured:
    """The parameters and the numbers of a commit or an experiment, by dotted key."""

    def __init__(self, data: Mapping[str, Any] | None) -> None:
        self.params = dict(flat((data or {}).get("params") or {}))
        self.numbers = dict(flat((data or {}).get("metrics") or {}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measured) and (self.params, self.numbers) == (other.params, other.numbers)


def flat(files: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All files of a kind as one; a file that DVC could not read is left out."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}" if key else name)
        else:
            yield key, value

    for file in files.values():
        yield from walk(file.get("data") or {}, "")


def row(name: str, state: str, run: Measured, parent: Measured, shown: list[str]) -> Iterator[str]:
    """Its name, state and changed parameters; its numbers and their change. What did not end has no numbers: DVC gives
    it those of the commit that it started from."""
    keys = dict.fromkeys([*parent.params, *run.params])
    changed = [
        f"{key} {text(parent.params.get(key))} → {text(run.params.get(key))}"
        for key in keys
        if parent.params.get(key) != run.params.get(key)
    ]
    title = f"{name}  {state}  {', '.join(changed)}".rstrip()
    yield ""
    yield from textwrap.wrap(title, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    if state in ("done", "changed"):
        yield numbers(run, shown)
        yield numbers(run, shown, parent)


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def numbers(run: Measured, shown: list[str], parent: Measured | None = None) -> str:
    """A line of the run's numbers or, with its parent, of their change."""
    from stages.metrics.definitions import BY_NAME
    from stages.page.formats import fixed

    cells = []
    for key in shown:
        value = run.numbers.get(key)
        if parent and value is not None:
            value -= parent.numbers[key]
        cells.append(f"{fixed(value, BY_NAME[key.partition('.')[2]].digits, sign=parent is not None):>{COLUMN}}")
    return f"{'  change' if parent else '':{INDENT}}" + "".join(cells)


if __name__ == "__main__":
    typer.run(main)
