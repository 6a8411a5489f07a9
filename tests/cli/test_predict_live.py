"""`sgn predict --live` as a process between two pipes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from sgnray.checkpoints.trained_model import load_trained_model

WALK = np.random.default_rng(5).normal(size=(40, 25, 3)).cumsum(axis=0).round(4)
LINES = [json.dumps(frame) for frame in WALK.tolist()]
FIVE_FRAMES = ("--window", "5", "--stride", "5")


@contextlib.contextmanager
def live(tiny_run, *options):
    """Start it as a shell does, to read each line as it comes; it is killed at the end."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "sgnray.cli", "predict", "--live", "--checkpoint"]
    with subprocess.Popen(
        [*command, str(tiny_run), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def predict_text(sgn, monkeypatch, tiny_run):
    """Run `sgn predict --live` in this process on a text."""

    def run(text, *options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return sgn("predict", "--live", "--checkpoint", str(tiny_run), *options)

    return run


def send(process, lines):
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())


def guesses_of(found):
    return [vars(guess) for guess in found]


def test_each_prediction_comes_before_the_next_frame(tiny_run):
    model = load_trained_model(tiny_run)
    with live(tiny_run, "--window", "8", "--stride", "5", "--top", "2") as process:
        for end in (5, 10, 15):
            send(process, LINES[end - 5 : end])
            window = WALK[max(end - 8, 0) : end]
            assert json.loads(process.stdout.readline()) == {
                "frame": end,
                "guesses": guesses_of(model.predict(window, num_guesses=2)),
            }
        pair = np.stack([WALK[0], WALK[1]]).tolist()
        send(process, ["null", "", "[]", json.dumps(pair), "null"])
        seen = np.full((8, 2, 25, 3), np.nan)
        seen[:3, 0], seen[6] = WALK[12:15], pair
        assert json.loads(process.stdout.readline())["guesses"] == guesses_of(
            model.predict(seen, num_guesses=2)
        )
        send(process, [" "] * 10)
        assert process.stdout.readline() != b""
        assert json.loads(process.stdout.readline()) == {"frame": 30, "guesses": []}
        process.stdin.close()
        assert process.wait(300) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def test_a_malformed_line_ends_the_stream_and_is_named(predict_text):
    lines = [*LINES[:16], '{"joints": ', *LINES]
    done = predict_text("\n".join(lines), "--window", "2")
    assert done.code == 1
    assert [json.loads(line)["frame"] for line in done.out.splitlines()] == [15]
    assert done.err == (
        "error: this is not JSON: Expecting value: line 2 column 1 (char 12)\n"
        "  where  line 17 of the stream\n"
        "  now    write each frame as one line of JSON: its joints, or null if no person is in it\n"
    )


def test_a_missing_joint_does_not_end_the_stream(predict_text):
    frames = WALK.tolist()
    frames[8][3], frames[20][5][1] = None, float("nan")
    done = predict_text("\n".join(map(json.dumps, frames)))
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line)["frame"] for line in done.out.splitlines()] == [15, 30]


def test_defaults_and_names_of_classes(predict_text, tiny_run, tmp_path):
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    done = predict_text("\n".join(LINES * 2), "--classes", "classes.txt", "--views", "1")
    assert (done.code, done.err) == (0, "")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [item["frame"] for item in found] == [15, 30, 45, 60, 75]
    assert {guess["name"] for guess in found[0]["guesses"]} == {"x", "y", "z"}
    last = load_trained_model(tiny_run).predict(np.concatenate([WALK, WALK])[15:75], num_views=1)
    assert [guess["label"] for guess in found[4]["guesses"]] == [guess.label for guess in last]


def test_onnxruntime_computes_the_same(predict_text):
    found, expected = (
        json.loads(predict_text("\n".join(LINES[:15]), "--runtime", runtime).out)["guesses"]
        for runtime in ("onnx", "torch")
    )
    assert [guess["label"] for guess in found] == [guess["label"] for guess in expected]
    shares = [guess["probability"] for guess in expected]
    assert [guess["probability"] for guess in found] == pytest.approx(shares, abs=1e-5)


def test_the_default_window_is_two_seconds_of_the_camera(predict_text, tiny_run):
    done = predict_text("\n".join(LINES[:25]), "--fps", "10")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [item["frame"] for item in found] == [5, 10, 15, 20, 25]
    last = load_trained_model(tiny_run).predict(WALK[5:25])
    assert [guess["probability"] for guess in found[4]["guesses"]] == [g.probability for g in last]


@pytest.mark.parametrize("options", [("inf",), ("10", "--window", "9", "--stride", "3")])
def test_a_frame_rate_without_effect_is_refused(sgn, tiny_run, options):
    done = sgn("predict", "--live", "--checkpoint", str(tiny_run), "--fps", *options)
    assert done.code == 2
    assert "the frame rate sets the window and the stride that are not given" in done.err


def test_a_line_without_an_end_is_not_read_whole(predict_text):
    done = predict_text(f"{LINES[0]}\n[{'0, ' * 1_000_000}")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: this is not JSON: ")
    assert "  where  line 2 of the stream\n" in done.err


def test_a_stream_that_is_too_short_is_reported(predict_text):
    done = predict_text("\n".join(LINES[:7]))
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        "warning: the stream ended at frame 7; the first prediction is at frame 15\n"
    )


def test_a_signal_ends_it_quietly(tiny_run):
    with live(tiny_run, *FIVE_FRAMES) as process:
        send(process, LINES[:5])
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"interrupted\n")


def test_a_closed_pipe_ends_it_quietly(tiny_run):
    with live(tiny_run, *FIVE_FRAMES) as process:
        send(process, LINES[:5])
        process.stdout.readline()
        process.stdout.close()
        send(process, LINES[5:10])
        assert process.wait(300) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--live", "x.skeleton"), "--live reads frames from stdin, in float32, in this process"),
        (("--live", "--clip", "x"), "--live reads frames from stdin, in float32, in this process"),
        (("--live", "--wait", "5s"), "--live reads frames from stdin, in float32, in this process"),
        (
            ("--live", "--precision", "bf16"),
            "--live reads frames from stdin, in float32, in this process",
        ),
        ((), "the argument FILE is missing"),
    ],
)
def test_usage_errors(sgn, arguments, message):
    done = sgn("predict", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}\n")


def test_the_newest_run_is_named_on_stderr(sgn, monkeypatch, tiny_run):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES[:5]).encode())))
    done = sgn("predict", "--live", "--runs", str(tiny_run.parent), *FIVE_FRAMES)
    assert done.err == f"using {tiny_run}\n"
    assert json.loads(done.out)["frame"] == 5
