"""Lock files: between processes, with a holder that dies, and on a disk without locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import signal

import pytest

from sgnray.errors import OutputError, RunError
from sgnray.storage.lock import locked, take_lock

BUSY = RunError("in use", where="here", now="wait")


def hold(path, ready, seconds=60.0):
    with locked(path, busy=BUSY):
        ready.set()
        multiprocessing.Event().wait(seconds)


@pytest.fixture
def holding(tmp_path):
    """Return a function that starts a process that holds the lock."""
    context = multiprocessing.get_context("fork")
    started = []

    def start(seconds):
        ready = context.Event()
        started.append(context.Process(target=hold, args=(tmp_path / "lock", ready, seconds)))
        started[-1].start()
        assert ready.wait(60)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_busy_lock_is_refused_until_its_holder_dies(holding, tmp_path):
    process = holding(60)
    with pytest.raises(RunError, match="in use"), locked(tmp_path / "lock", busy=BUSY):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(tmp_path / "lock", busy=BUSY):
        pass


def test_a_busy_lock_is_waited_for(holding, tmp_path, caplog):
    holding(0.3)
    with caplog.at_level(logging.INFO), locked(tmp_path / "lock", busy="waiting"):
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


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_is_reported(tmp_path, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="does not support file locks") as caught:
        take_lock(tmp_path / "lock", busy="waiting")
    assert caught.value.where == str(tmp_path / "lock")
