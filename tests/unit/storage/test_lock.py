"""Lock files: between processes, with a holder that dies, and on a disk without locks."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from sgnray.errors import OutputError, RunError
from sgnray.storage.lock import locked, locked_folder, take_lock

BUSY = RunError("in use", where="here", now="wait")


def hold(path, ready, released):
    with locked(path, busy=BUSY):
        ready.set()
        released.wait(300)


@pytest.fixture
def holding(tmp_path):
    """Return a function that starts a process that holds the lock."""
    context = multiprocessing.get_context("fork")
    started = []

    def start():
        ready, released = context.Event(), context.Event()
        started.append(context.Process(target=hold, args=(tmp_path / "lock", ready, released)))
        started[-1].start()
        assert ready.wait(300)
        return started[-1], released

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_busy_lock_is_refused_until_its_holder_dies(holding, tmp_path):
    process, _ = holding()
    with pytest.raises(RunError, match="in use"), locked(tmp_path / "lock", busy=BUSY):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(tmp_path / "lock", busy=BUSY):
        pass


def test_a_busy_lock_is_waited_for(holding, tmp_path, caplog):
    _, released = holding()

    def release(record):
        released.set()
        return True

    path = tmp_path / "lock"
    with caplog.at_level("INFO"), caplog.filtering(release), locked(path, busy="waiting"):
        pass
    assert "waiting: " in caplog.text


def test_a_lock_whose_file_was_removed_does_not_keep_others_out(tmp_path):
    first = take_lock(tmp_path / "lock", busy=BUSY)
    (tmp_path / "lock").unlink()
    second = take_lock(tmp_path / "lock", busy=BUSY)
    first.release()
    with pytest.raises(RunError):
        take_lock(tmp_path / "lock", busy=BUSY)
    second.release()


def test_a_locked_folder_is_removed_unless_something_is_left_in_it(tmp_path):
    out = tmp_path / "new" / "out"
    with locked_folder(out, busy=BUSY) as folder:
        with pytest.raises(RunError, match="in use"), locked_folder(out, busy=BUSY):
            pass
        assert os.listdir(folder) == ["lock"]
    assert os.listdir(tmp_path) == []
    with locked_folder(out, busy=BUSY) as folder:
        (folder / "rows").write_text("kept")
    assert os.listdir(folder) == ["rows"]
    with locked_folder(out, busy=BUSY) as folder:
        (folder / "rows").unlink()
    assert os.listdir(tmp_path) == ["new"]


def test_a_folder_that_its_holder_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    removed = []

    def is_dir(path, **options):  # the second half of mkdir(exist_ok=True)
        if path.name == "out.partial" and not removed:
            path.rmdir()
            removed.append(path)
        return path.exists()

    (tmp_path / "out.partial").mkdir()
    monkeypatch.setattr(Path, "is_dir", is_dir)
    with locked_folder(tmp_path / "out", busy=BUSY) as folder:
        assert removed
        assert folder.exists()


@pytest.mark.parametrize("place", ["file", "link", "folder/link"])
def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path / "nothing")
    (tmp_path / "link.partial").symlink_to(tmp_path / "nothing")
    (tmp_path / "file.partial").write_text("")
    out = tmp_path / place if place != "folder/link" else tmp_path / "folder/link/out"
    refused = pytest.raises(OutputError, match="could not be written: File exists")
    with refused as caught, locked_folder(out, busy=BUSY):
        pass
    assert caught.value.where == f"{out}.partial"


def test_a_folder_that_cannot_be_made_is_reported():
    refused = pytest.raises(OutputError, match="could not be written: No such file")
    with refused, locked_folder(Path("/proc/x"), busy=BUSY):
        pass


def test_a_file_in_the_place_of_the_folder_of_a_lock_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written: "):
        take_lock(tmp_path / "file/lock", busy=BUSY)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_is_reported(tmp_path, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="does not support file locks") as caught:
        take_lock(tmp_path / "lock", busy="waiting")
    assert caught.value.where == str(tmp_path / "lock")
    assert caught.value.now.startswith("choose a folder on a local disk, or")
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path))
    with pytest.raises(OutputError) as caught:
        take_lock(tmp_path / "datasets.lock", busy="waiting")
    assert "set SGNRAY_CACHE to a folder on a local disk, on all nodes" in caught.value.now
