"""How a stage ends when something is wrong: one line that stands by itself."""

import resource

import pytest
import torch
from tqdm.auto import tqdm

from stages.runtime.command import command
from stages.runtime.errors import UserError


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


def test_a_full_disk_is_named_where_no_oserror_is_raised(tmp_path, capfd):
    from safetensors import SafetensorError

    @command
    def stage(write):
        write()

    def as_safetensors_says():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def as_torch_says():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            torch.save({"a": torch.zeros(10_000)}, tmp_path / "optimizer.pt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    for write in (as_safetensors_says, as_torch_says):
        with pytest.raises(SystemExit):
            stage(write)
        assert capfd.readouterr().err.startswith("error: a file could not be written: is the disk full?")

    with pytest.raises(ZeroDivisionError):  # what is no user's mistake keeps its traceback
        stage(lambda: 1 / 0)


@pytest.mark.parametrize(
    "error",
    [
        UserError("model.name: \x1b[31mred\x07\u202e is not there\r\nerror: a line of its own"),
        FileNotFoundError(2, "no such file", "\x1b]0;a title\x07.json"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(error, capsys):
    @command
    def stage():
        raise error

    with pytest.raises(SystemExit):
        stage()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n")
    assert said.rstrip("\n").isprintable() and "\\x1b" in said


def test_a_message_in_chinese_stays_as_it_is():
    assert str(UserError("病人：\u3000多喝水 🤒")) == "病人：\u3000多喝水 🤒"
