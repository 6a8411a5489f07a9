"""A search through Ray Tune, on the tiny dataset: to its end, and interrupted."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sgnray.cluster import connected
from sgnray.config import load_recipe
from sgnray.data.store import open_dataset
from sgnray.errors import SgnError
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
    assert diverged.error == "the loss is no longer a finite number (epoch 1)"
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
    assert "Traceback" in log
    assert "trial 1, epoch 1: {'train/loss': " in log

    assert tuned.best_overrides == as_overrides(best.values)
    result = train_run(
        load_recipe(str(tuned.best_recipe_path)), tiny_folder, runs_dir=tmp_path / "runs"
    )
    assert load_recipe(str(tuned.best_recipe_path)) == with_values(tiny_recipe, best.values)
    assert result.report.num_clips == 9


def test_where_every_trial_fails_the_search_does(cluster, tmp_path, tiny_recipe, tiny_folder):
    space = write_space(tmp_path, "optim.learning_rate: {choice: [1e+30, 1e+31]}\n")
    with pytest.raises(SgnError) as caught:
        tune_recipe(tiny_recipe, space, tiny_folder, search="grid", num_epochs=1, runs_dir=tmp_path)
    assert caught.value.what == "none of the 2 trials came to its end"
    assert [problem.what for problem in caught.value.problems] == [
        "the loss is no longer a finite number (epoch 1)"
    ]


def test_many_more_epochs_are_spared_than_spent(cluster, tmp_path, tiny_recipe, tiny_folder):
    """Trials that learn nothing are stopped by those that came before them."""
    rates = ", ".join(f"1e-{number}" for number in range(2, 12))
    space = write_space(tmp_path, f"optim.learning_rate: {{choice: [{rates}]}}\n")
    tuned = tune_recipe(
        tiny_recipe, space, tiny_folder, search="grid", num_epochs=9, runs_dir=tmp_path
    )
    stopped = [row for row in tuned.trials if row.status == "stopped"]
    assert stopped
    assert {row.num_epochs for row in stopped} <= {2, 6}
    best = max(row.score for row in tuned.trials if row.num_epochs == 9)
    assert tuned.best_score == best


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
