"""A search through Ray Tune, on the tiny dataset: to its end, and interrupted."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys

import psutil
import pytest

from sgnray.cluster import connected
from sgnray.config import load_recipe
from sgnray.data.store import open_dataset
from sgnray.train import train_run
from sgnray.tune import tune_recipe
from sgnray.tune.plan import shorten
from sgnray.tune.space import as_overrides, with_values
from sgnray.tune.trial import train_folds

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    """One local Ray for the searches of this file: starting it is what takes long."""
    with connected(num_workers=2) as resources:
        yield resources


def read_table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def write_space(folder, text):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_a_search_from_the_space_to_the_best_recipe(cluster, tmp_path, tiny_recipe, tiny_folder):
    """A grid of three, of which one diverges: a row in the table, not the end of the search."""
    space = write_space(
        tmp_path,
        "optim.learning_rate: {choice: [1e-2, 1e+30, 1e-3]}\ndata.num_segments: {choice: [4]}\n",
    )
    told, progress = [], []
    tuned = tune_recipe(
        tiny_recipe,
        space,
        tiny_folder,
        search="grid",
        num_epochs=2,
        runs_dir=tmp_path / "runs",
        on_trial=told.append,
        on_progress=lambda *counts: progress.append(counts),
    )
    first, diverged, third = tuned.trials
    assert {first.status, third.status} <= {"finished", "stopped"}
    assert "finished" in {first.status, third.status}
    assert diverged.status == "failed"
    assert diverged.error is not None
    assert diverged.error.startswith("the model no longer gives finite numbers (the scores of ")
    assert sorted(told, key=lambda row: row.number) == list(tuned.trials)
    assert progress[-1][0] == progress[-1][1] == first.num_epochs + third.num_epochs

    # What Ray ran is what one process computes.
    best = next(row for row in tuned.trials if row.score == tuned.best_score)
    recipe = shorten(with_values(tiny_recipe, best.values), 2)
    metrics = list(train_folds(recipe, open_dataset(tiny_folder)))
    assert metrics[best.num_epochs - 1]["val/top1"] == best.score

    assert tuned.folder.parent == tmp_path / "runs"
    assert tuned.folder.name.startswith("tune-synth-cv-")
    table = read_table(tuned.folder)
    assert [row["trial"] for row in table] == ["1", "2", "3"]
    assert [row["status"] for row in table] == [row.status for row in tuned.trials]
    assert [row["optim.learning_rate"] for row in table] == ["0.01", "1e+30", "0.001"]
    log = (tuned.folder / "log.txt").read_text()
    assert "in train_folds" in log  # the traceback
    assert "trial 1, epoch 1: {'train/loss': " in log

    assert tuned.best_overrides == as_overrides(best.values)
    result = train_run(
        load_recipe(str(tuned.best_recipe_path)), tiny_folder, runs_dir=tmp_path / "runs"
    )
    assert load_recipe(str(tuned.best_recipe_path)) == with_values(tiny_recipe, best.values)
    assert result.report.num_clips == 9


def test_asha_spares_epochs_of_trials_that_do_worse(cluster, tmp_path, tiny_recipe, tiny_folder):
    rates = ", ".join(f"{number}e-2" for number in range(1, 11))
    space = write_space(tmp_path, f"optim.learning_rate: {{choice: [{rates}]}}\n")
    done = []
    tuned = tune_recipe(
        tiny_recipe,
        space,
        tiny_folder,
        search="grid",
        num_epochs=18,
        runs_dir=tmp_path,
        on_progress=lambda *counts: done.append(counts),
    )
    statuses = {row.number: row.status for row in tuned.trials}
    assert set(statuses.values()) == {"finished", "stopped"}
    assert {row.num_epochs for row in tuned.trials if row.status == "stopped"} <= {4, 12}
    assert tuned.best_score == max(row.score for row in tuned.trials if row.status == "finished")
    assert done[0] == (1, 180)
    assert done[-1][0] == done[-1][1] == sum(row.num_epochs for row in tuned.trials) < 180


_SEARCH = """
from pathlib import Path
from sgnray.config import load_recipe
from sgnray.tune import tune_recipe
recipe = load_recipe({recipe!r}, ["train.num_epochs=100000"])
tune_recipe(recipe, "default", Path({data!r}), num_trials=4, num_epochs=100000, name="mine",
            runs_dir=Path({runs!r}), on_progress=lambda *counts: print(*counts, flush=True))
"""


def test_ctrl_c_ends_the_search_and_leaves_no_process(tmp_path, tiny_recipe, tiny_folder):
    from sgnray.config import dump_recipe

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(tiny_recipe))
    code = _SEARCH.format(recipe=str(recipe), data=str(tiny_folder), runs=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "1 400000\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (1, -signal.SIGINT)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert {row["status"] for row in read_table(tmp_path / "mine")} == {"interrupted", "waiting"}
