"""What is drawn on a terminal, in a pipe, and with NO_COLOR."""

import io
import os
import pty
import subprocess
import sys
import time

import pytest

from sgnray.cli import render
from sgnray.cli.training_table import shown_epochs
from sgnray.train import EpochResult
from sgnray.train.job import TrainProgress

SHOW_PROGRESS = """
import time
from sgnray.cli import render
with render.progress("clips") as update:
    for done in range(1, 4):
        update(done, 3)
        render.note(f"note {done}")
        time.sleep(0.15)
render.result("done")
"""


RUN = """
import time
from types import SimpleNamespace as New
from sgnray.cli import render
from sgnray.cli.training_table import shown_epochs
metrics = {"train/loss": 1.0, "train/top1": 0.5, "lr": 1e-3, "speed/clips_per_s": 9.0,
           "time/epoch_s": 60.0}
with shown_epochs("2") as show:
    for epoch in (1, 2):
        show.on_progress(New(stage="train", epoch=epoch, num_epochs=3, done=5, total=8,
                             num_workers=2))
        time.sleep(0.4)
        show(New(epoch=epoch, num_epochs=3, history=(metrics,) * epoch, metrics=metrics))
    render.warning("look out")
    time.sleep(0.4)
    END
"""


# A command that shows a run and prints a line as other libraries do.
LONG = """
import time
from sgnray.cli import data, render
from sgnray.cli.main import run
from sgnray.cli.training_table import shown_epochs

def work(path):
    render.note("begun")
    with shown_epochs():
        print("a line of a library")
        time.sleep(0.3)
        print("another")
    with render.progress("clips") as update:
        update(1, 1)
        render.note("a note")
    render.text("the result")
    raise SystemExit(0)

data.choose_dataset = work
run(["data", "verify"])
"""


METRICS = {"train/loss": 1.0, "train/top1": 0.5, "lr": 1e-3, "speed/clips_per_s": 9.0}


@pytest.fixture
def terminal():
    """Run a command with stderr on a terminal of 80 columns; gives what it drew."""

    def run(*command, **environment):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command,
            stderr=theirs,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
        ):
            os.close(theirs)
            drawn = b""
            while True:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
                if not chunk:
                    break
                drawn += chunk
        os.close(ours)
        return drawn.decode()

    return run


def test_a_terminal_shows_a_bar_and_lines_above_it(terminal):
    drawn = terminal(sys.executable, "-c", SHOW_PROGRESS)
    assert "\x1b[" in drawn
    assert "3/3" in drawn
    assert drawn.index("note 1") < drawn.index("note 3")


def test_a_terminal_gets_colors_unless_no_color(terminal):
    command = (sys.executable, "-m", "sgnray.cli", "trian")
    assert terminal(*command).startswith("\x1b[1;31merror:\x1b[0m unknown command")
    plain = terminal(*command, NO_COLOR="1")
    assert "\x1b[1;31m" not in plain
    assert "31" not in plain
    assert "error:" in plain


def test_a_long_problem_is_wrapped_on_a_terminal_only(terminal, sgn):
    arguments = ("train", "--recipe", "ntu60-cs", "optim.lr=1")
    drawn = terminal(sys.executable, "-m", "sgnray.cli", *arguments, NO_COLOR="1")
    assert max(map(len, drawn.splitlines())) <= 80
    assert "label_smoothing" in drawn
    assert len(sgn(*arguments).err.splitlines()) == 4


def test_a_pipe_gets_no_escape_codes_and_a_line_every_two_seconds(sgn, capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with render.progress("clips") as update:
        for done in range(1, 101):
            now += 0.0625
            update(done, 400)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "clips: 32 of 400\nclips: 64 of 400\nclips: 96 of 400\n"


def test_long_progress_in_a_pipe_takes_at_most_twenty_lines(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with render.progress("clips") as update:
        for done in range(1, 1001):
            now += 3
            update(done, 1000)
    assert 15 <= capsys.readouterr().err.count("\n") <= 20


def test_short_progress_prints_nothing_in_a_pipe(capsys):
    with render.progress("clips") as update:
        update(1, 1)
    assert capsys.readouterr().err == ""


def test_epochs_are_lines_in_a_pipe(capsys):
    with shown_epochs() as show:
        show(EpochResult(2, (METRICS,)))
        show(EpochResult(2, (METRICS, METRICS)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1/2  loss 1.000")
    assert second.startswith("epoch 2/2  loss 1.000")


def test_a_long_epoch_in_a_pipe_has_a_line_every_minute(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with shown_epochs() as show:
        for epoch in (1, 2):
            for done in range(0, 100, 4):
                now += 24
                show.on_progress(TrainProgress("train", epoch, 2, done, 100, num_workers=1))
    assert capsys.readouterr().err.splitlines()[::4] == [
        "epoch 1/2, steps: 12 of 100",
        "epoch 1/2, steps: 60 of 100",
        "epoch 2/2, steps: 12 of 100",
        "epoch 2/2, steps: 60 of 100",
    ]


@pytest.mark.parametrize(
    ("command", "shown"),
    [("view", "drawing"), ("predict", "loading"), ("export", "exporting")],
)
def test_work_of_unknown_length_is_shown_on_a_terminal(
    terminal, tiny_raw, tiny_run, tmp_path, command, shown
):
    recording = str(next(tiny_raw.glob("*.skeleton")))
    arguments = {
        "view": [recording, "--to", "png"],
        "predict": [recording, "--checkpoint", str(tiny_run)],
        "export": [str(tiny_run), "--to", "safetensors"],
    }[command]
    drawn = terminal(sys.executable, "-m", "sgnray.cli", command, *arguments)
    assert shown in drawn
    assert "\x1b[?25h" in drawn[drawn.rindex(shown) :]  # the cursor is back
    assert "error" not in drawn


def test_quiet_draws_nothing(capsys):
    render.set_verbosity(-1)
    try:
        with render.progress("clips") as update:
            update(1, 1)
        with render.spinner("loading"):
            pass
        with shown_epochs() as show:
            show(EpochResult(2, (METRICS,)))
        render.note("a note")
        render.warning("a warning")
    finally:
        render.set_verbosity(0)
    assert capsys.readouterr().err == ""


def test_a_failure_ends_the_bar_and_restores_the_cursor(terminal):
    command = SHOW_PROGRESS.replace('render.note(f"note {done}")', "1 / 0")
    drawn = terminal(sys.executable, "-c", command)
    assert "ZeroDivisionError" in drawn
    assert drawn.rstrip().endswith("division by zero")
    assert "\x1b[?25h" in drawn  # the cursor is back


def test_json_is_one_object_that_any_parser_reads(capsys):
    render.as_json({"top1": 0.5, "names": ["drink", "\u00e9"]})
    assert capsys.readouterr().out == (
        '{\n  "top1": 0.5,\n  "names": [\n    "drink",\n    "\\u00e9"\n  ]\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        render.as_json({"loss": float("nan")})


def test_brackets_in_results_are_no_markup(capsys):
    from rich.table import Table

    table = Table.grid()
    table.add_row("[red]a[/blue] :smile:")
    render.result("[b]x[/c] :smile:", table)
    assert capsys.readouterr().out == "[b]x[/c] :smile:\n[red]a[/blue] :smile:\n"


def test_a_terminal_gets_a_table_that_moves_and_stays(terminal):
    seen = terminal(sys.executable, "-c", RUN.replace("END", ""))
    assert "step 5/8" in seen
    assert "\x1b[?25h" in seen  # the cursor is back
    last = seen[seen.rindex("look out") :]
    assert "clips/s" in last
    assert "2 of 3 epochs done" in last


def test_no_color_removes_all_colors(terminal):
    seen = terminal(sys.executable, "-c", RUN.replace("END", ""), NO_COLOR="1")
    assert "clips/s" in seen
    assert "\x1b[3" not in seen.replace("\x1b[3A", "")


def test_a_dumb_terminal_gets_lines(terminal):
    seen = terminal(sys.executable, "-c", RUN.replace("END", ""), TERM="dumb")
    assert seen.count("9 clips/s") == 2
    assert "step 5/8" not in seen


def test_an_interrupt_keeps_the_table_and_restores_the_cursor(terminal):
    seen = terminal(sys.executable, "-c", RUN.replace("END", "raise KeyboardInterrupt"))
    assert "2 of 3 epochs done" in seen
    assert seen.index("2 of 3 epochs done") < seen.rindex("KeyboardInterrupt")
    assert "\x1b[?25h" in seen


def _full():
    return os.open("/dev/full", os.O_WRONLY)


def _broken_pipe():
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


def _gone_terminal():
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("open_stderr", [_full, _broken_pipe, _gone_terminal])
def test_a_command_continues_when_stderr_cannot_be_written(open_stderr, is_drawn):
    drawing = {"TTY_COMPATIBLE": "1" if is_drawn else "0", "TERM": "xterm"}
    stderr = open_stderr()
    done = subprocess.run(
        [sys.executable, "-c", LONG],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **drawing},
        timeout=200,
        check=False,
    )
    os.close(stderr)
    assert (done.returncode, done.stdout) == (0, b"the result")


def test_characters_that_stdout_cannot_encode_are_escaped(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", stdout)
    render.result("größer, \u8df3")
    assert stdout.buffer.getvalue() == "größer, \\u8df3\n".encode("latin-1")
