"""What trials report, the record of their events, and the table that follows from it."""

from dataclasses import asdict

import pytest

from sgnray.errors import RunError
from sgnray.tune.trials import (
    Ended,
    EpochReport,
    FailureReport,
    Record,
    Reported,
    Started,
    TrialRow,
    TrialTable,
    best_of,
    rank,
    read_result,
)

RAYS_OWN = {"training_iteration": 1, "done": False, "config": {"number": 1}}


@pytest.mark.parametrize(
    "report",
    [
        EpochReport(2, 0.5, 0.1, 3.0, 4, 5, "here", 1.5, 2.5, "ab", 300.0),
        EpochReport(1, 0.25),
        FailureReport("ValueError: no", "Traceback"),
    ],
)
def test_a_report_survives_ray(report):
    result = asdict(report)
    assert {"epoch", "score"} <= result.keys()  # the scheduler reads them
    assert read_result(result | RAYS_OWN) == report


def test_a_failure_has_its_reason_in_one_line_and_its_traceback():
    try:
        raise ValueError("no\n  way " + 400 * "x")
    except ValueError as error:
        failure = FailureReport.of(error)
    assert failure.reason.startswith("ValueError: no way xx")
    assert len(failure.reason) == 300
    assert "raise ValueError" in failure.traceback
    error = RunError("it is in use", where="here", now="wait")
    assert FailureReport.of(error).reason == "it is in use (here)"


EVENTS = [
    Started(1, {"model.graph_widths": [8, 8], "data.windows": "even", "optim.decay": 0.1}),
    Reported(1, EpochReport(1, 1 / 3, None, 0.1, 7, 9, "host")),
    Ended(1, "failed", 'it said "no"\nloudly'),
]


@pytest.fixture
def record(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    for event in EVENTS:
        record.add(event)
    return record


def test_events_round_trip(record, tmp_path):
    assert record.read() == EVENTS
    assert Record(tmp_path / "none").read() == []


def test_the_line_format_of_the_previous_version_is_kept(record):
    """Later fields of a report, such as its losses, are not recorded."""
    record.add(Reported(1, EpochReport(2, 0.5, train_loss=1.0, placement_group="ab")))
    lines = record.path.read_text().splitlines()
    assert lines[1] == (
        '{"event": "reported", "number": 1, "epoch": 1, "score": 0.3333333333333333, '
        '"spread": null, "duration_s": 0.1, "num_parameters": 7, "flops": 9, "node": "host"}'
    )
    assert record.read()[-1] == Reported(1, EpochReport(2, 0.5))


def test_a_report_of_a_trial_that_has_not_started_is_refused(record):
    """Someone removed the line of its start."""
    lines = record.path.read_text().splitlines(keepends=True)
    record.path.write_text("".join(lines[1:]))
    with pytest.raises(RunError, match="line 1 of the search's record is not a valid event"):
        record.read()


def test_a_line_that_a_kill_cut_off_is_skipped_and_repaired(record):
    whole = record.path.read_bytes()
    for size in range(len(whole)):
        record.path.write_bytes(whole[:size])
        read = record.read()
        assert read == EVENTS[: len(read)]
        assert len(read) == whole[:size].count(b"\n")
        record.add(EVENTS[0])
        assert record.read() == [*read, EVENTS[0]]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"event": "born"}', '{"event": "ended", "x": 1}', "1"]
)
def test_an_invalid_line_is_refused(record, line):
    lines = record.path.read_text().splitlines()
    record.path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(RunError) as caught:
        record.read()
    assert caught.value.what == "line 2 of the search's record is not a valid event"


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
