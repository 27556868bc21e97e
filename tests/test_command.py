"""How a stage ends when something is wrong: one line that stands by itself."""

import pytest
from tqdm.auto import tqdm

from stages.core.command import command
from stages.core.errors import UserError


def test_an_error_does_not_share_its_line_with_a_progress_bar(capsys):
    bar = tqdm(total=10, mininterval=0)
    bar.update(3)

    @command
    def stage():
        raise UserError("params.yaml: `x` is wrong")

    with pytest.raises(SystemExit):
        stage()
    *shown, last, end = capsys.readouterr().err.split("\n")
    assert "3/10" in shown[-1] and last == "error: params.yaml: `x` is wrong" and end == ""
