"""What becomes of what Ray tells: the table, the caller, and errors on the way."""

import csv
import logging

import pytest

from sgnray.errors import OutputError
from sgnray.tune.folder import claim_search
from sgnray.tune.progress import Progress


@pytest.fixture
def folder(tmp_path, plan):
    with claim_search(tmp_path, None, plan) as folder:
        yield folder


def statuses(folder):
    with folder.trials_path.open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_the_table_and_the_caller_follow_the_trials(folder):
    ended, done = [], []
    progress = Progress(folder, ended.append, lambda *counts: done.append(counts))
    progress.begin()
    assert statuses(folder) == ["waiting"] * 3
    progress.on_epoch(1, 0.5, {})
    progress.on_epoch(1, 0.6, {})
    progress.on_end(1)
    progress.on_epoch(2, 0.5, {})
    progress.on_end(2)
    progress.on_failure(3, "ValueError: no")
    assert statuses(folder) == ["finished", "stopped", "failed"]
    assert [(row.number, row.score) for row in ended] == [(1, 0.6), (2, 0.5), (3, None)]
    assert done == [(1, 6), (2, 6), (2, 6), (3, 6), (3, 5), (3, 3)]
    progress.end()
    assert folder.best_path.exists()


def test_what_was_reached_is_kept_when_the_search_is_interrupted(folder):
    progress = Progress(folder, None, None)
    progress.begin()
    progress.on_epoch(2, 0.5, {})
    progress.end()
    assert statuses(folder) == ["waiting", "interrupted", "waiting"]


def test_an_error_of_the_callers_is_not_lost(folder):
    def fail(row):
        raise OutputError("full", where="here", now="make space")

    progress = Progress(folder, fail, None)
    progress.on_end(1)
    with pytest.raises(OutputError):
        progress.on_epoch(2, 0.5, {})
    with pytest.raises(OutputError):
        progress.end()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "Failure # 1\nsgnray.errors.InputError: it is torn (a.arrow); x",
            "it is torn (a.arrow); x",
        ),
        ("Failure # 1\nTraceback\nValueError: b\n", "ValueError: b"),
        ("Failure # 1\nTraceback\n\x1b[36mOut of memory\x1b[39m\n", "Out of memory"),
        (None, "no reason given"),
        ("", "no reason given"),
    ],
)
def test_a_failure_has_its_reason_in_one_line(folder, caplog, error, reason):
    caplog.set_level(logging.DEBUG, logger="sgnray.tune.progress")
    progress = Progress(folder, None, None)
    progress.on_failure(2, error)
    assert progress.board.rows[1].error == reason
    assert caplog.messages[0].startswith(f"trial 2 failed: {reason}\n")
