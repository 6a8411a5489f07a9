"""The live table of a training run, at any width."""

import io
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from sgnray.cli.training_table import LiveTraining, TrainingTable, learning_rate


@dataclass
class Epoch:
    num_epochs: int
    history: tuple

    @property
    def epoch(self):
        return len(self.history)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def metrics(epoch, *, val=None):
    metrics = {"train/loss": 9.0 / epoch, "train/top1": 1.0, "lr": 7.9e-4, "time/epoch_s": 3600.0}
    metrics |= {"speed/clips_per_s": 12345.6}
    return metrics if val is None else metrics | {"val/top1": val}


def run_of(num_done, num_epochs=120, best=None):
    vals = [0.9 if epoch == best else 0.5 for epoch in range(1, num_done + 1)]
    history = [metrics(e, val=None if best is None else v) for e, v in enumerate(vals, 1)]
    return Epoch(num_epochs, tuple(history))


def progress(done, total=500, *, stage="train", epoch=1, num_epochs=120, num_workers=2):
    return SimpleNamespace(
        stage=stage,
        epoch=epoch,
        num_epochs=num_epochs,
        done=done,
        total=total,
        num_workers=num_workers,
    )


def drawn(table, width=80, height=24):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    with console.capture() as capture:
        console.print(table, end="")
    plain = Console(file=io.StringIO(), width=1000, force_terminal=False)
    plain.print(Text.from_ansi(capture.get()), end="")
    return [line.rstrip() for line in plain.file.getvalue().splitlines()]


@pytest.fixture
def table():
    return TrainingTable(workers="2", clock=Clock())


def test_the_last_ten_epochs_and_the_best_before_them_are_shown(table):
    table(run_of(31, best=4))
    lines = drawn(table)
    assert lines[0].split() == ["epoch", "loss", "train", "val", "lr", "clips/s", "time"]
    assert lines[2].split() == (
        ["4", "2.250", "100.0%", "90.0%", "0.00079", "12,346", "1:00:00", "best"]
    )
    assert [line.split()[0] for line in lines[4:14]] == [str(epoch) for epoch in range(22, 32)]
    assert lines[14].startswith("epoch 32/120")
    assert lines[14].endswith("3 days, 17:00:00 left  2 workers")


def test_the_best_epoch_is_marked_only_with_validation(table):
    table(run_of(5, best=4))
    marked = [line.split()[0] for line in drawn(table) if line.endswith("best")]
    assert marked == ["4"]
    table(run_of(5))
    lines = drawn(table)
    assert "val" not in lines[0]
    assert not any("best" in line for line in lines)


@pytest.mark.parametrize("width", [*range(10, 81, 5), 200])
def test_no_line_is_wider_than_the_terminal_and_the_epoch_is_always_there(table, width):
    table(run_of(31, best=4))
    table.on_progress(progress(250, epoch=32))
    lines = drawn(table, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 15  # no line is broken
    assert lines[0].split()[0] == "epoch"


def test_a_low_terminal_gets_fewer_epochs(table):
    table(run_of(31))
    assert len(drawn(table, height=8)) == 2 + 2 + 1
    assert len(drawn(table, height=4)) == 1


def test_steps_move_the_bar_and_estimate_the_time_left_in_the_first_epoch(table):
    assert drawn(table)[0].startswith("starting")
    table.on_progress(progress(0, num_epochs=2, num_workers=3))
    assert "left" not in drawn(table)[0]
    table._clock.now = 10.0
    table.on_progress(progress(100, num_epochs=2, num_workers=1))
    (line,) = drawn(table)
    assert line.startswith("epoch 1/2 ")
    assert line.endswith("0:01:30 left  step 100/500  1 worker")


def test_a_run_in_this_process_has_no_workers():
    table = TrainingTable(clock=Clock())
    table.on_progress(progress(100, num_epochs=2, num_workers=1))
    assert drawn(table)[0].endswith("step 100/500")


def test_time_left_counts_down_only_until_the_next_epoch(table):
    table(run_of(118))
    left = []
    for table._clock.now in (0.0, 600.0, 9999.0):
        left.append(drawn(table)[-1].split()[3])
    assert left == ["2:00:00", "1:50:00", "1:00:00"]


def test_time_left_uses_epochs_of_this_launch_only(table):
    slow, fast = metrics(1) | {"time/epoch_s": 1000.0}, metrics(1) | {"time/epoch_s": 10.0}
    table(Epoch(9, (slow, slow, slow, fast)))
    assert "0:00:50 left" in drawn(table)[-1]


def test_test_progress_is_shown_and_the_final_line_stays(table):
    table(run_of(3, num_epochs=3))
    assert drawn(table)[-1].startswith("test")
    table.on_progress(progress(1024, 16487, stage="test"))
    assert drawn(table)[-1].endswith("1,024/16,487 clips  2 workers")
    table._clock.now = 61.0
    table.end()
    assert drawn(table)[-1] == "3 of 3 epochs done in 0:01:01"


def test_a_run_without_finished_epochs_says_so(table):
    table.end()
    assert drawn(table) == ["no epoch was finished"]


@pytest.mark.parametrize(
    ("value", "text"), [(1e-3, "0.001"), (1e-4, "0.0001"), (7.94e-5, "7.9e-05"), (0.0, "0")]
)
def test_learning_rates_take_seven_characters(value, text):
    assert learning_rate(value) == text
    assert len(text) <= 7


def test_a_terminal_that_became_narrower_is_cleaned(table):
    """Each line of 64 columns takes two rows in a terminal of 40 columns."""
    table(run_of(3))
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True)
    with LiveTraining(table, console) as live:
        live.auto_refresh = False
        live.refresh()
        rows = len(drawn(table))
        wide = table.num_rows_wrapped(40)
        assert wide >= rows - 1
        start = file.tell()
        console.width = 40
        live.refresh()
        file.seek(start)
        assert file.read().count("\x1b[1A") >= rows - 1 + wide
