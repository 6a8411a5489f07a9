"""The table of trials: which one is the best, and what is left to do."""

from sgnray.tune.trials import (
    Ended,
    EpochReport,
    Reported,
    Started,
    TrialRow,
    TrialTable,
    best_of,
    rank,
)

VALUES = {"optim.decay": 0.1}


def make_row(number, status, *scores, error=None):
    return TrialRow(number, status, VALUES, scores, error=error)


def make_table(*events):
    table = TrialTable()
    for event in events:
        table.apply(event)
    return table


def test_the_best_has_the_most_epochs_and_then_the_highest_last_score():
    rows = [
        make_row(1, "finished", 0.9, 0.6),
        make_row(2, "finished", 0.7, 0.7),
        make_row(3, "stopped", 0.8),
        make_row(4, "failed", 1.0, 1.0, error="lost"),
        make_row(5, "finished", 0.8, 0.7),
    ]
    assert [row.number for row in rank(rows)] == [2, 5, 1, 3, 4]
    assert best_of(rows) is rows[1]
    assert (rows[0].score, rows[0].best_score) == (0.6, 0.9)
    assert (rows[3].score, rows[3].best_score) == (None, None)


def test_if_none_finished_the_one_with_the_most_epochs_is_the_best():
    rows = [make_row(1, "stopped", 0.9), make_row(2, "stopped", 0.5, 0.5, 0.5)]
    assert best_of(rows) is rows[1]


def test_failed_and_unfinished_trials_are_never_the_best():
    rows = [
        make_row(1, "failed", 0.9, error="lost"),
        make_row(2, "running", 0.8),
        make_row(3, "interrupted", 0.8),
    ]
    assert best_of(rows) is None


def test_a_table_follows_its_trials():
    table = make_table()
    table.apply(Started(1, VALUES))
    table.apply(Reported(1, EpochReport(1, 0.5)))
    row = table.apply(Reported(1, EpochReport(2, 0.25, 0.1, 7.0, 10, 20, "here")))
    assert row == TrialRow(1, "running", VALUES, (0.5, 0.25), 0.1, 7.0, 10, 20, "here")
    assert table.apply(Ended(1, "stopped")).has_ended
    table.apply(Started(3, VALUES))
    failed = table.apply(Ended(3, "failed", "ValueError: no"))
    assert (failed.status, failed.score, failed.error) == ("failed", None, "ValueError: no")
    table.interrupt()
    assert [row.status for row in table.rows] == ["stopped", "failed"]


def test_a_repeated_epoch_replaces_the_first():
    begun = [
        Started(1, VALUES),
        Reported(1, EpochReport(1, 0.5)),
        Reported(1, EpochReport(2, 0.6)),
        Reported(1, EpochReport(3, 0.7)),
    ]
    table = make_table(*begun, Started(1, VALUES), Reported(1, EpochReport(2, 0.1)))
    assert table.row(1).scores == (0.5, 0.1)


def test_a_table_read_from_a_record_marks_running_trials_as_interrupted():
    events = [
        Started(2, VALUES),
        Reported(2, EpochReport(1, 0.5)),
        Started(1, VALUES),
        Ended(1, "finished"),
    ]
    table = TrialTable(events)
    assert [(row.number, row.status) for row in table.rows] == [(1, "finished"), (2, "interrupted")]
