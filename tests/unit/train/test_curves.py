"""curves.png: always complete, from whichever metrics an epoch has."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.errors import OutputError
from sgnray.train.tracking import curves
from sgnray.train.tracking.curves import CURVES_FILE, Curves, draw_curves

REPORT = SimpleNamespace(top1=0.925, evaluated=SimpleNamespace(epoch=None))


def epoch(rate=1e-3, **values):
    return {"train/loss": 2.0, "train/top1": 0.5, "lr": rate, "time/epoch_s": 1.0} | values


def drawn(history, report=None):
    figure = Figure()
    curves._compose(figure, history, "synth cs", report)
    return figure.axes


def names(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("num_epochs", [1, 3, 120])
def test_a_run_of_any_length_is_drawn(tmp_path, num_epochs):
    draw_curves(tmp_path / CURVES_FILE, [epoch()] * num_epochs, title="synth cs", report=REPORT)
    pixels_HWC = imread(tmp_path / CURVES_FILE)
    assert pixels_HWC.shape[:2] == (960, 1200)
    assert pixels_HWC.min() < 0.5
    assert [path.name for path in tmp_path.iterdir()] == [CURVES_FILE]


def test_validation_and_test_are_shown_where_there_are_any():
    loss, accuracy, _ = drawn([epoch()] * 2)
    assert names(loss) == names(accuracy) == ["training"]
    scores = [{"val/loss": 1.0, "val/top1": top1} for top1 in (0.2, 0.9, 0.6)]
    loss, accuracy, _ = drawn([epoch(**score) for score in scores], REPORT)
    assert names(loss) == ["training", "validation"]
    assert names(accuracy)[2:] == ["best validation 90.0%, epoch 2", "test 92.5%, epoch 3"]


def test_steps_of_the_learning_rate_are_marked_and_a_cosine_is_not():
    def marks(rates):
        return [line.get_xdata()[0] for line in drawn([epoch(r) for r in rates])[0].lines[1:]]

    assert marks([1e-3] * 6 + [1e-4] * 3 + [1e-5]) == [6.5, 9.5]
    assert marks([math.cos(step / 20) for step in range(30)]) == []
    assert marks([1e-3, 1e-3, 0.0]) == [2.5]  # zero has no place on a logarithmic axis


def test_it_is_drawn_once_a_minute_and_at_the_end(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(curves.time, "monotonic", lambda: clock.now)
    recipe = SimpleNamespace(data=SimpleNamespace(dataset="synth", case="cs"))
    tracker = Curves()
    assert tracker.start(recipe, RunFolder(tmp_path), []) == 0
    picture = tmp_path / CURVES_FILE
    seen = []
    for clock.now in (30.0, 59.0, 61.0, 90.0, 122.0):
        tracker.log(1, epoch())
        seen.append(picture.exists())
        picture.unlink(missing_ok=True)
    assert seen == [False, False, True, False, True]
    tracker.finish(None, is_complete=False)
    assert not picture.exists()
    tracker.finish(REPORT, is_complete=True)
    assert picture.exists()


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError) as caught:
        draw_curves(tmp_path / "none" / CURVES_FILE, [epoch()], title="x")
    assert caught.value.where == str(tmp_path / "none" / CURVES_FILE)


def test_training_starts_without_the_plotting_library():
    code = (
        "import sys, sgnray.train; "
        "sys.exit({'matplotlib', 'tensorboard', 'mlflow', 'wandb'} & {*sys.modules} != set())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_matplotlib_is_quiet_where_home_cannot_be_written():
    """It keeps a cache there, else warns of a temporary one."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from sgnray.train.tracking.plot_style import new_figure\n"
            "new_figure((1.0, 1.0), dpi=50, h_pad=0.1)",
        ],
        env={**os.environ, "MPLCONFIGDIR": "/proc/nowhere"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stderr == ""
