"""How trials stand: which one is the best, what is left to do, and the table of all."""

import csv
import io

import pytest

from sgnray.tune.board import Board, TrialRow, as_csv, best_of, rank
from sgnray.tune.plan import plan_search
from sgnray.tune.space import Choice, Space


@pytest.fixture
def board(tiny_recipe):
    """Three trials of four epochs."""
    space = Space("mine", {"data.num_segments": Choice((4, 6, 8))})
    return Board(
        plan_search(
            tiny_recipe,
            space,
            search="grid",
            num_trials=0,
            num_epochs=None,
            dataset_checksum="",
        )
    )


def make_row(number, status, num_epochs, score, best=None, error=None):
    return TrialRow(number, status, num_epochs, score, best, {"optim.decay": 0.1}, error)


def test_the_best_went_furthest_and_then_scored_highest_at_its_end():
    rows = [
        make_row(1, "finished", 4, 0.6, best=0.9),
        make_row(2, "finished", 4, 0.7, best=0.7),
        make_row(3, "stopped", 1, 0.8, best=0.8),
        make_row(4, "failed", 4, None, best=1.0, error="lost"),
        make_row(5, "finished", 4, 0.7, best=0.8),
    ]
    assert [row.number for row in rank(rows)] == [2, 5, 1, 3, 4]
    assert best_of(rows) is rows[1]


def test_where_none_went_all_the_way_the_furthest_is_the_best():
    rows = [make_row(1, "stopped", 1, 0.9), make_row(2, "stopped", 3, 0.5)]
    assert best_of(rows) is rows[1]


def test_trials_that_failed_or_are_under_way_are_never_the_best():
    rows = [
        make_row(1, "failed", 4, None, best=0.9, error="lost"),
        make_row(2, "running", 3, 0.8),
        make_row(3, "interrupted", 3, 0.8),
        make_row(4, "waiting", 0, None),
    ]
    assert best_of(rows) is None


def test_a_board_follows_its_trials(board):
    assert [row.status for row in board.rows] == ["waiting"] * 3
    assert board.progress == (0, 12)
    board.reported(1, 0.5)
    board.reported(1, 0.25)
    assert board.rows[0] == TrialRow(1, "running", 2, 0.25, 0.5, {"data.num_segments": 4})
    assert board.progress == (2, 12)
    assert board.ended(1).status == "stopped"
    assert board.progress == (2, 10)
    for score in (0.0, 0.1, 0.2, 0.3):
        board.reported(2, score)
    assert board.ended(2).status == "finished"
    board.reported(3, 0.9)
    failed = board.failed(3, "ValueError: no")
    assert (failed.status, failed.score, failed.best_score) == ("failed", None, 0.9)
    assert failed.error == "ValueError: no"
    assert board.progress == (7, 7)
    board.interrupt()
    assert [row.status for row in board.rows] == ["stopped", "finished", "failed"]


def test_an_interrupt_marks_what_was_under_way(board):
    board.reported(2, 0.5)
    board.interrupt()
    assert [row.status for row in board.rows] == ["waiting", "interrupted", "waiting"]


def test_the_table_has_a_column_for_each_searched_key():
    values = {"optim.learning_rate": 0.001, "model.graph_widths": [8, 8, 8], "optim.x": "sqrt"}
    rows = [
        TrialRow(1, "finished", 4, 0.5, 0.75, values),
        TrialRow(2, "failed", 0, None, None, values, 'it said "no",\nloudly'),
    ]
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert read[0] == {
        "trial": "1",
        "status": "finished",
        "epochs": "4",
        "best_val_top1": "0.75",
        "last_val_top1": "0.5",
        "optim.learning_rate": "0.001",
        "model.graph_widths": "[8, 8, 8]",
        "optim.x": "sqrt",
        "error": "",
    }
    assert read[1]["error"] == 'it said "no",\nloudly'
    assert (read[1]["best_val_top1"], read[1]["last_val_top1"]) == ("", "")
