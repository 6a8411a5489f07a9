"""A search as it is shown, character by character, and while it runs."""

import dataclasses
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import sgnray.tune
from sgnray.cli import render
from sgnray.cli.options import parse_duration
from sgnray.cli.tables import duration
from sgnray.cli.tune import SearchTable, result_data, result_tables, shown_search, trial_line
from sgnray.config import load_recipe
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import OutputError, UsageError
from sgnray.storage.location import locate
from sgnray.tune import TrialRow, TuneResult
from sgnray.tune.plan import Plan
from sgnray.tune.space_file import load_space

VALUES = {
    "data.num_segments": 20,
    "model.embedding_width": 96,
    "model.dropout": 0.3713,
    "optim.learning_rate": 0.002082,
    "optim.weight_decay": 5.159e-05,
    "optim.label_smoothing": 0.1,
}


def make_trial(number, status="finished", *scores, **changes):
    return TrialRow(number, status, VALUES, scores, **{"duration_s": 75.0, **changes})


TRIALS = (
    make_trial(1, "stopped", 0.2, 0.4, 0.5),
    make_trial(2, "failed", error="it diverged"),
    make_trial(3, "finished", *[0.5] * 11, 0.75, spread=0.0123),
)


def make_search(trials=TRIALS, **changes):
    recipe = load_recipe("ntu60-cs")
    plan = Plan(recipe, load_space("default", recipe), "random", "asha", 3, 12, 1, 1, "sha256:00")
    result = TuneResult(
        folder=Path("runs/t"),
        plan=plan,
        trials=trials,
        best=trials[2],
        best_recipe_path=Path("runs/t/best.yaml"),
        importances={"model.dropout": 0.75, "optim.learning_rate": 0.25},
    )
    return dataclasses.replace(result, **changes)


@pytest.fixture
def lines(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def _lines(parts):
        render.result(*parts)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return _lines


def test_the_names_of_six_keys_are_not_cut_in_80_columns(lines):
    long = make_trial(12, "stopped", *[0.5] * 12, duration_s=5000.0)
    head = " ".join(lines(result_tables(make_search((*TRIALS, long))))[:2]).split()
    assert {"segments", "embedding", "learning", "smoothing"} <= set(head)


def test_a_search_fits_into_80_columns_best_first(lines):
    shown = lines(result_tables(make_search()))
    assert max(map(len, shown)) <= 80
    figures = [line.split()[:4] for line in shown if "0:01:15" in line]
    assert [row[0] for row in figures] == ["3", "1", "2"]
    assert [row[1] for row in figures] == ["75.00%", "50.00%", "failed"]
    assert shown[-6:-1] == [
        "cut: stopped early, because others were better",
        "",
        "trial 2 failed: it diverged",
        "",
        "importance: model.dropout 75%, optim.learning_rate 25%",
    ]
    assert shown[-1] == "best: trial 3, 75.00% \u00b1 1.23% over seeds on the validation part"


def test_only_the_best_twenty_trials_are_shown(lines):
    trials = (*TRIALS, *(make_trial(number, "stopped", 0.1) for number in range(4, 34)))
    shown = lines(result_tables(make_search(trials)))
    assert sum("0:01:15" in line for line in shown) == 20
    assert "and 13 more in trials.csv" in shown


def test_a_trial_is_one_line_and_a_failure_says_why():
    assert trial_line(TRIALS[2]) == (
        "trial   3  val  75.0%  12 epochs  num_segments=20 embedding_width=96 dropout=0.37 "
        "learning_rate=0.0021 weight_decay=5.2e-05 label_smoothing=0.1"
    )
    failed = trial_line(TRIALS[1])
    assert failed.startswith("trial   2  failed  0 epochs  ")
    assert failed.endswith("\n  it diverged")
    assert trial_line(TrialRow(1, "finished", {}, (0.5,))).endswith("1 epoch  unchanged")


def test_the_page_is_named_also_after_final_training(sgn, monkeypatch, tiny_folder):
    final = SimpleNamespace(folder=Path("runs/x"), report=SimpleNamespace(top1=0.5, num_clips=9))
    monkeypatch.setattr(sgnray.tune, "tune_recipe", lambda *_, **__: make_search())
    monkeypatch.setattr(sgnray.tune, "train_final", lambda *_, **__: final)
    done = sgn("tune", "--case", "cs", "--data", str(tiny_folder), "--final")
    assert done.out.endswith("training clips; run runs/x\n")
    assert done.err.endswith("see runs/t/search.html\n")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_result_is_shown_if_the_final_training_fails(sgn, monkeypatch, tiny_folder, form):
    def fail(*_, **__):
        raise OutputError("the disk is full", where="runs/x", now="free some space")

    monkeypatch.setattr(sgnray.tune, "tune_recipe", lambda *_, **__: make_search())
    monkeypatch.setattr(sgnray.tune, "train_final", fail)
    done = sgn("tune", "--case", "cs", "--data", str(tiny_folder), "--final", *form)
    assert done.code == 1
    if form:
        content = json.loads(done.out)
        assert (content["format_version"], content["best_recipe"]) == (1, "runs/t/best.yaml")
    else:
        assert "best: trial 3" in done.out
    assert "the disk is full" in done.err


@pytest.mark.parametrize(
    ("options", "device", "num_cpus"),
    [
        ((), "auto", None),
        (("--gpus-per-trial", "0", "--cpus-per-trial", "5"), "cpu", 2),
        (("--gpus-per-trial", "2"), "cuda", None),
    ],
)
def test_the_final_run_gets_the_resources_of_a_trial(
    sgn, monkeypatch, tiny_folder, options, device, num_cpus
):
    seen = {}

    def train_final(*_, **settings):
        seen.update(settings)
        report = SimpleNamespace(top1=0.5, num_clips=9)
        return SimpleNamespace(folder=Path("runs/x"), report=report)

    monkeypatch.setattr(sgnray.tune, "tune_recipe", lambda *_, **__: make_search())
    monkeypatch.setattr(sgnray.tune, "train_final", train_final)
    options = (*options, "--workers-per-trial", "2", "--label", "zone=b")
    done = sgn("tune", "--case", "cs", "--data", str(tiny_folder), "--final", *options)
    assert done.code == 0, done.err
    assert (seen["workers"], seen["device"]) == (2, device)
    assert seen["request"] == WorkerRequest(num_cpus=num_cpus, labels={"zone": "b"})


def test_a_search_as_plain_data():
    content = result_data(make_search())
    assert content["best_recipe"] == "runs/t/best.yaml"
    assert content["best_trial"] == 3
    assert content["best_overrides"][0] == "data.num_segments=20"
    assert [trial["number"] for trial in content["trials"]] == [1, 2, 3]
    assert content["trials"][1]["error"] == "it diverged"


def test_plain_data_name_the_files_of_a_search_at_a_uri(monkeypatch):
    path, place = Path("runs/t"), locate("s3://bucket/t?region=us-east-1")
    copy = {path: SimpleNamespace(path=path, place=place)}
    monkeypatch.setattr("sgnray.storage.mirror._mirrors", copy)
    content = result_data(make_search())
    assert content["folder"] == "s3://bucket/t"
    assert content["best_recipe"] == "s3://bucket/t/best.yaml"


def draw(board, width, height):
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(board)
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (50, 10), (20, 3)])
def test_a_running_search_is_never_wider_or_higher_than_the_terminal(width, height):
    clock = iter([0.0, *[60.0] * 9])
    board = SearchTable(clock=lambda: next(clock))
    running = [make_trial(number, "running", 0.1) for number in range(4, 12)]
    board.on_update(TRIALS, 16, 12)
    board.on_update([*TRIALS, *running], 16, 12)
    shown = draw(board, width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    if width == 80:
        assert shown[0] == "best so far"
        assert shown[1].startswith("    3   75.0%  12/12  num_segments=20 ")
        assert shown[-1] == "3 of 16 trials, 8 running, 1 stopped, 1 failed, at most 0:18:30 left"


def test_without_a_terminal_each_trial_is_a_line(capsys):
    with shown_search() as listener:
        listener.on_update(TRIALS, 3, 12)
        for trial in TRIALS:
            listener.on_trial_end(trial)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [line for trial in TRIALS for line in trial_line(trial).split("\n")]


def test_without_a_terminal_long_trials_have_a_line_every_minute(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with shown_search() as listener:
        for num_epochs in range(7):
            now += 31
            row = make_trial(1, "running", *[0.5] * num_epochs)
            listener.on_update((row,), num_trials=2, num_epochs=12)
    assert capsys.readouterr().err.splitlines() == [
        f"epochs of all trials: {done} of 24" for done in (2, 4, 6)
    ]


def test_a_search_that_has_not_begun_says_so():
    assert draw(SearchTable(), 80, 24) == ["starting"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("8h", 28800), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations_are_parsed(text, seconds):
    assert parse_duration(text, "--time-budget") == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "-5m", "0s", "5 minutes", "1h30m", "inf"])
def test_an_invalid_duration_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_duration(text, "--time-budget")
    assert caught.value.where == "--time-budget"


def test_durations_are_formatted_as_a_clock():
    assert duration(3725.4) == "1:02:05"
