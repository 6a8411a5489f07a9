"""record.jsonl: what it keeps, and what a kill may leave of it."""

import pytest

from sgnray.errors import RunError
from sgnray.tune.trials import Ended, EpochReport, Record, Reported, Started

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
