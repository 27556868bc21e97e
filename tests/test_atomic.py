"""Files and folders are whole or absent, whatever happens while they are written."""

import errno
import os
from contextlib import suppress

import pytest

from stages.runtime import atomic


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Renamed first, it could be there after a power cut with nothing in it."""
    steps = []
    sync, replace = os.fsync, os.replace

    def watched_sync(number):
        steps.append(("on the disk", os.fstat(number).st_size))
        sync(number)

    def watched_replace(source, target):
        steps.append(("named", source.stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    atomic.write_bytes(tmp_path / "new" / "file", b"12345")
    assert steps == [("on the disk", 5), ("named", 5)]
    assert (tmp_path / "new" / "file").read_bytes() == b"12345"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, error):
    def fail(number):
        raise error

    atomic.write_text(tmp_path / "file", "before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        atomic.write_text(tmp_path / "file", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_a_failed_folder_leaves_what_was_there(tmp_path):
    with atomic.folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("before")
    with suppress(ZeroDivisionError), atomic.folder(tmp_path / "model") as folder:
        (folder / "other").write_text("after")
        assert [path.name for path in (tmp_path / "model").iterdir()] == ["weights"]
        raise ZeroDivisionError
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/weights"]
    with atomic.folder(tmp_path / "model") as folder:
        (folder / "other").write_text("after")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["other"]
