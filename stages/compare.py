"""Two or more runs → what was changed, whether that made a difference beyond chance, and how the answers differ.

    python -m stages.compare main ppo-kl-0.1
    python -m stages.compare HEAD:sft HEAD:ppo --page compare.html
    python -m stages.compare main exp-a exp-b exp-c --page compare.html

A run is a commit, branch, tag or experiment, or `workspace`; `:sft` after it chooses a stack, `ppo` unless given. Files
come from Git, DVC's cache or its remote, and nothing is checked out. What it prints is Markdown, for a pull request.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.runtime import atomic
from stages.runtime.command import command
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    from stages.page.compare_inputs import Run
    from stages.page.i18n import Sentence

WORKSPACE = "workspace"
GET_IT = "`dvc pull`, or run it again"
PATIENCE = 10
"""Seconds for which a state of the queue that can't be read is taken for one that is being written."""


@command
def main(
    revs: Annotated[list[str], typer.Argument(help="runs; a single one is compared with the workspace")],
    page: Annotated[Path | None, typer.Option(help="also write this page (HTML)")] = None,
    language: Annotated[str, typer.Option(help="en or zh, of the table and of the page when it opens")] = "en",
    reports: Annotated[str, typer.Option(help="folder of the reports in every revision")] = "reports",
) -> None:
    """Compare runs with the first one."""
    from stages.page import compare_markdown, compare_page, compare_settings
    from stages.page.i18n import say

    check_language(language)
    found, left_out = read(revs if len(revs) > 1 else [*revs, WORKSPACE], reports)
    compare_settings.same_questions(found)
    runs, duplicates = compare_settings.without_duplicates(found)
    if len(runs) < 2:
        because = [say(note, language) for note in left_out + duplicates]
        raise UserError(" ".join(["nothing is left to compare.", *because]))
    compared = compare_settings.compare(compare_settings.group(runs))
    notes = [*compare_settings.caveats(compared), *left_out, *duplicates]
    print(compare_markdown.markdown(compared, notes, language), end="")
    if page:
        atomic.write_bytes(page, compare_page.render(compared, notes, language))
        typer.echo(page.resolve().as_uri(), err=True)


def check_language(language: str) -> None:
    from stages.page.i18n import LANGUAGES

    if language not in LANGUAGES:
        raise UserError(f"--language must be one of {', '.join(LANGUAGES)}, not {language}")


def read(names: Sequence[str], reports: str) -> "tuple[list[Run], list[Sentence]]":
    """The runs that are there, and what to say of those that failed or did not end."""
    from stages.page import compare_inputs
    from stages.page.i18n import Sentence

    revisions: dict[str, Revision] = {}
    found, left_out = [], []
    for name in names:
        rev, _, model = name.partition(":")
        try:
            revision = revisions.setdefault(rev, Revision(rev))
            found.append(compare_inputs.read(name, model or "ppo", revision.read_text, reports))
        except compare_inputs.Unfinished as reason:
            left_out.append(Sentence("compare.failed", {"name": name, "reason": str(reason)}))
        except FileNotFoundError as error:
            raise UserError(f"{name}: {error.filename} is in no cache and no remote; {GET_IT}") from None
    if not found:
        because = "; ".join("{name}: {reason}".format(**note.values) for note in left_out)
        raise UserError(f"no run is left to compare. {because}")
    return found, left_out


class Revision:
    """The files of a commit, branch, tag or experiment, or of the workspace."""

    def __init__(self, rev: str) -> None:
        from dvc.api import DVCFileSystem
        from dvc.exceptions import NotDvcRepoError
        from dvc.scm import RevError, SCMError

        from stages.page.compare_inputs import Unfinished

        self.rev = rev
        try:
            self._files: DVCFileSystem = DVCFileSystem(".", rev=None if rev == WORKSPACE else rev)
            _ = self._files.repo  # it is opened at its first use: here, where its errors are understood
        except RevError:
            state = queue().get(rev)
            if state:
                raise Unfinished(f"the experiment is {state.lower()}") from None
            raise UserError(f"{rev}: no commit, branch, tag or experiment; see `make experiments`") from None
        except (NotDvcRepoError, SCMError):
            raise UserError(f"{Path.cwd()}: not a checkout of this project") from None

    def read_text(self, path: str) -> str:
        try:
            return str(self._files.read_text(path, encoding="utf-8"))
        except FileNotFoundError as error:
            error.filename = path
            raise

    def copy(self, path: str, to: Path) -> None:
        """Copy a file or a folder; raises UserError where its content is nowhere."""
        from dvc_data.index import DataIndexDirError

        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files.get(path, str(to), recursive=True)
        except (FileNotFoundError, DataIndexDirError):
            raise UserError(f"{self.rev}: {path} is in no cache and no remote; {GET_IT}") from None


def queue() -> dict[str, str]:
    """The experiments of DVC's queue: name → Queued, Running, Success or Failed.

    Its workers write their state in place: a file seen half written is read again.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        for _ in range(PATIENCE):
            with contextlib.suppress(json.JSONDecodeError):
                return {task["name"]: task["status"] for task in repo.experiments.celery_queue.status() if task["name"]}
            time.sleep(1)
    raise UserError(
        ".dvc/tmp/exps/celery, the state of DVC's queue, can't be read: `dvc queue stop --kill`, delete that folder, "
        "and queue again"
    )


if __name__ == "__main__":
    typer.run(main)
