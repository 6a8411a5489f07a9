"""A search through Ray Tune, on the tiny dataset: to its end, interrupted, and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray

from sgnray.checkpoints.checkpoint import unpack_checkpoint
from sgnray.config import dump_recipe, load_recipe
from sgnray.data.store import open_dataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.precision import choose_precision
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import ClusterError, SgnError
from sgnray.tune import TrialResources, train_final, tune_recipe
from sgnray.tune.folds import Folds
from sgnray.tune.plan import shorten
from sgnray.tune.trials import Ended, Record, Reported

from ..processes import wait_for

pytestmark = pytest.mark.ray

RATES = "optim.learning_rate: {choice: [1e-2, 2e-2, 3e-2, 4e-2]}\n"


@pytest.fixture(scope="module")
def cluster():
    """One local Ray for the searches of this file, because it is slow to start."""
    with connected(num_workers=2) as resources:
        yield resources


@pytest.fixture(scope="module")
def undisturbed(tiny_recipe, tiny_folder):
    """The scores of the trials of a search over `RATES`, 20 epochs each, in this process."""
    dataset = open_dataset(tiny_folder)

    def train(rate):
        recipe = shorten(tiny_recipe.replacing({"optim.learning_rate": rate}), 20)
        return tuple(report.score for report in Folds(recipe, dataset).train_remaining())

    return [train(rate) for rate in (1e-2, 2e-2, 3e-2, 4e-2)]


class Heard:
    """A listener that keeps what it receives."""

    def __init__(self):
        self.boards, self.trials = [], []

    def on_update(self, rows, num_trials, num_epochs):
        self.boards.append((rows, num_trials, num_epochs))

    def on_trial_end(self, row):
        self.trials.append(row)


def read_table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def write_space(folder, text):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def wait_until_free(cluster):
    """Wait until no CPU is reserved: Ray releases those of ended trials within moments."""
    wait_for(
        lambda: ray.available_resources().get("CPU", 0.0) >= cluster.num_cpus,
        ray.available_resources,
    )


def test_a_grid_from_the_space_to_the_test(cluster, tmp_path, tiny_recipe, tiny_folder):
    """One of three trials diverges: it is a row in the table, and the search continues."""
    tiny_recipe = tiny_recipe.replacing({"train.log": ("tensorboard",)})
    space = write_space(
        tmp_path,
        "optim.learning_rate: {choice: [1e-2, 1e+30, 1e-3]}\ndata.num_segments: {choice: [4]}\n",
    )
    heard = Heard()
    settings = {"search": "grid", "num_epochs": 2, "num_seeds": 2, "runs_dir": tmp_path / "runs"}
    tuned = tune_recipe(tiny_recipe, space, tiny_folder, listener=heard, **settings)
    first, diverged, third = tuned.trials
    assert [row.status for row in tuned.trials] == ["finished", "failed", "finished"]
    assert diverged.error is not None
    assert diverged.error.startswith("the model's output is not finite (the scores of ")
    assert sorted(heard.trials, key=lambda row: row.number) == list(tuned.trials)
    assert heard.boards[-1] == (tuned.trials, 3, 2)
    assert "in train_and_validate" in (tuned.folder / "log.txt").read_text()  # the traceback
    assert len(list(tuned.folder.glob("trackers/trial-*/tensorboard/events.*"))) == 3
    wait_until_free(cluster)

    # Ray gives the same scores as one process.
    best = tuned.best
    assert best.score == max(first.score, third.score)
    recipe = shorten(tiny_recipe.replacing(best.values), 2)
    reports = list(Folds(recipe, open_dataset(tiny_folder), num_seeds=2).train_remaining())
    assert tuple(report.score for report in reports) == best.scores
    assert reports[-1].spread == best.spread

    assert tuned.folder.name.startswith("tune-synth-cv-")
    table = read_table(tuned.folder)
    assert [row["status"] for row in table] == [row.status for row in tuned.trials]
    assert not list((tuned.folder / "states").iterdir())
    assert load_recipe(str(tuned.best_recipe_path)) == tiny_recipe.replacing(best.values)

    again = tune_recipe(tiny_recipe, space, tiny_folder, listener=heard, **settings)
    assert again.trials == tuned.trials
    assert len(heard.trials) == 3  # nothing was run again

    finished = train_final(tuned, tiny_folder)
    final = json.loads((tuned.folder / "final.json").read_text())
    assert final["test_top1"] == finished.report.top1
    assert (final["trial"], final["tested_before"]) == (best.number, [])
    assert finished.folder.parent == tuned.folder


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_asha_stops_trials_early_and_frees_all_workers(
    cluster, tmp_path, tiny_recipe, tiny_folder, num_workers
):
    """Ray itself would keep the CPUs of stopped trials that have two workers each."""
    state = str(np.random.get_state())
    space = write_space(tmp_path, "optim.learning_rate: {choice: [5e-3, 1e-9]}\n")
    learns = {"model.embedding_width": 32, "model.graph_widths": [64, 64, 64]}
    tuned = tune_recipe(
        tiny_recipe.replacing({**learns, "model.frame_width": 128, "optim.batch_size": 4}),
        space,
        tiny_folder,
        search="grid",
        scheduler="asha",
        num_epochs=16,
        resources=TrialResources(num_workers=num_workers, concurrent=1),
        runs_dir=tmp_path,
    )
    learnt, stayed = tuned.trials
    assert (learnt.status, learnt.num_epochs) == ("finished", 16)
    assert (stayed.status, stayed.num_epochs) in (("stopped", 4), ("stopped", 12))
    assert str(np.random.get_state()) == state  # it is the caller's
    wait_until_free(cluster)


@pytest.mark.slow
def test_after_the_time_budget_the_same_command_resumes(
    cluster, tmp_path, tiny_recipe, tiny_folder
):
    """Cut trials resume from the epoch that they had reached."""
    space = write_space(tmp_path, "optim.learning_rate: {choice: [1e-2, 2e-2]}\n")
    settings = {"search": "grid", "num_epochs": 2000, "runs_dir": tmp_path, "name": "mine"}

    def cut(time_budget_s):
        with pytest.raises(SgnError, match="no trial is complete yet"):
            tune_recipe(tiny_recipe, space, tiny_folder, time_budget_s=time_budget_s, **settings)
        wait_until_free(cluster)
        table = read_table(tmp_path / "mine")
        assert {row["status"] for row in table} == {"interrupted"}
        return {row["trial"]: int(row["epochs"]) for row in table}

    # A busy machine takes longer until the first epoch: the budget grows until there is one.
    def cut_until(is_enough, time_budget_s):
        while True:
            reached = cut(time_budget_s)
            if is_enough(reached):
                return reached, time_budget_s
            time_budget_s *= 2
            assert time_budget_s < 300, reached

    first, time_budget_s = cut_until(lambda reached: min(reached.values()) > 0, 12)
    cut_until(lambda reached: all(reached[trial] > first[trial] for trial in first), time_budget_s)


@pytest.mark.slow
def test_a_time_budget_frees_the_workers_of_the_trials_that_it_cuts(
    cluster, tmp_path, tiny_recipe, tiny_folder, monkeypatch
):
    class Clock(Heard):
        def on_update(self, rows, num_trials, num_epochs):
            if any(row.num_epochs for row in rows):  # the budget is used up
                late = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
                monkeypatch.setattr("sgnray.tune.ray.callbacks.time", late)

    with pytest.raises(SgnError, match="no trial is complete yet"):
        tune_recipe(
            tiny_recipe,
            write_space(tmp_path, RATES),
            tiny_folder,
            search="grid",
            num_epochs=100000,
            time_budget_s=3600,
            resources=TrialResources(num_workers=2),
            runs_dir=tmp_path,
            listener=Clock(),
        )
    wait_until_free(cluster)


@pytest.mark.parametrize(
    ("resources", "needed"),
    [
        pytest.param(
            TrialResources(num_cpus=10_000, request=WorkerRequest(wait_s=2)),
            "1 trial with 10,000 CPUs",
            marks=pytest.mark.slow,
            id="CPUs",
        ),
        pytest.param(
            TrialResources(num_cpus=1, request=WorkerRequest(labels={"zone": "b"}, wait_s=2)),
            "1 trial with 1 CPU, zone=b",
            id="label",
        ),
    ],
)
def test_waiting_for_resources_that_no_node_has_ends(
    cluster, tmp_path, tiny_recipe, tiny_folder, resources, needed
):
    space = write_space(tmp_path, "optim.learning_rate: {choice: [1e-2]}\n")
    settings = {"search": "grid", "num_epochs": 1, "runs_dir": tmp_path, "name": "mine"}
    address = ray.get_runtime_context().gcs_address
    with pytest.raises(ClusterError, match=f"waited 2 s for {needed}"):
        tune_recipe(
            tiny_recipe, space, tiny_folder, resources=resources, address=address, **settings
        )
    wait_until_free(cluster)
    node_id = ray.get_runtime_context().get_node_id()
    here = replace(
        resources,
        num_cpus=1,
        request=WorkerRequest(labels={"ray.io/node-id": node_id}),
    )
    tuned = tune_recipe(
        tiny_recipe, space, tiny_folder, resources=here, address=address, **settings
    )
    assert {row.status for row in tuned.trials} == {"finished"}


@pytest.mark.slow
def test_a_trial_of_several_workers_stops_waiting(cluster, tmp_path, tiny_recipe, tiny_folder):
    resources = TrialResources(2, 10_000, request=WorkerRequest(wait_s=2))
    settings = {"search": "grid", "num_epochs": 1, "runs_dir": tmp_path, "resources": resources}
    address = ray.get_runtime_context().gcs_address
    space = write_space(tmp_path, RATES)
    with pytest.raises(ClusterError, match="waited 2 s for 1 trial with 10,000 CPUs"):
        tune_recipe(tiny_recipe, space, tiny_folder, address=address, **settings)
    wait_until_free(cluster)


@pytest.mark.slow
def test_trials_of_several_workers_run_one_by_one_where_one_has_room(
    cluster, tmp_path, tiny_recipe, tiny_folder
):
    heard, address = Heard(), ray.get_runtime_context().gcs_address
    tuned = tune_recipe(
        tiny_recipe,
        write_space(tmp_path, RATES),
        tiny_folder,
        search="grid",
        scheduler="asha",
        num_epochs=4,
        resources=TrialResources(2, cluster.num_cpus),
        runs_dir=tmp_path,
        address=address,
        listener=heard,
    )
    assert len(tuned.trials) == 4
    assert {row.status for row in tuned.trials} <= {"finished", "stopped"}
    boards = [[row.number for row in rows if not row.has_ended] for rows, *_ in heard.boards]
    assert max(map(len, boards)) == 1
    wait_until_free(cluster)


@pytest.mark.slow
def test_all_trials_of_a_search_have_one_precision(
    cluster, tmp_path, tiny_recipe, tiny_folder, caplog
):
    """`auto` is resolved once, on a node of the cluster; then the folder's precision is kept."""
    recipe = tiny_recipe.replacing({"train.precision": "auto"})
    space, address = write_space(tmp_path, RATES), ray.get_runtime_context().gcs_address
    settings = {"search": "grid", "num_epochs": 1, "runs_dir": tmp_path, "address": address}
    with pytest.raises(SgnError, match="no trial is complete yet"):
        tune_recipe(
            recipe,
            space,
            tiny_folder,
            resources=TrialResources(num_cpus=10_000),
            time_budget_s=2,
            name="asked",
            **settings,
        )
    with caplog.at_level("INFO", logger="sgnray"):
        tuned = tune_recipe(recipe, space, tiny_folder, **settings, name="asked")
    precision = choose_precision("cpu")
    assert (tuned.folder / "precision.txt").read_text().strip() == precision
    assert f"train.precision=auto means {precision} in this search" in caplog.messages

    tuned = tune_recipe(tiny_recipe, space, tiny_folder, **settings, name="pinned")
    assert not (tuned.folder / "precision.txt").exists()


_SEARCH = """
from pathlib import Path
from sgnray.config import load_recipe
from sgnray.tune import TrialResources, tune_recipe
tune_recipe(load_recipe({recipe!r}), {space!r}, Path({data!r}), search="grid", scheduler="none",
            num_epochs={num_epochs}, resources=TrialResources(concurrent=1), name="mine",
            runs_dir=Path({runs!r}))
"""


@pytest.fixture
def searching(tmp_path, tiny_recipe, tiny_folder):
    """Start a search of four trials in a process of its own, one trial after the other."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(tiny_recipe))
    space = write_space(tmp_path, RATES)
    started = []

    def start(num_epochs, **environment):
        code = _SEARCH.format(
            recipe=str(recipe),
            space=str(space),
            data=str(tiny_folder),
            runs=str(tmp_path),
            num_epochs=num_epochs,
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_ctrl_c_ends_the_search_and_leaves_no_process(tmp_path, searching):
    process = searching(num_epochs=4)
    record = Record(tmp_path / "mine" / "record.jsonl")
    wait_for(lambda: len(record.read()) > 2 or process.poll() is not None, record.read)
    assert process.poll() is None, process.communicate()[1]
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (1, -signal.SIGINT)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(children, timeout=200)
    assert not alive
    table = read_table(tmp_path / "mine")
    assert "running" not in {row["status"] for row in table}
    for row in table:
        if row["status"] == "interrupted" and int(row["epochs"]) > 0:
            state = tmp_path / "mine" / "states" / f"{int(row['trial']):04d}.zip"
            with zipfile.ZipFile(state) as archive:
                checkpoint = unpack_checkpoint(archive.read("0.pt"), where=str(state))
            assert checkpoint.epoch >= int(row["epochs"])


def test_a_killed_search_does_not_repeat_finished_trials(
    cluster, undisturbed, tmp_path, searching, tiny_recipe, tiny_folder
):
    address = ray.get_runtime_context().gcs_address
    process = searching(num_epochs=20, RAY_ADDRESS=address)
    record = Record(tmp_path / "mine" / "record.jsonl")
    wait_for(lambda: any(isinstance(event, Ended) for event in record.read()), record.read)
    process.kill()
    process.communicate()
    ended = {event.number for event in record.read() if isinstance(event, Ended)}
    assert 1 <= len(ended) < 4
    before = len(record.read())
    wait_until_free(cluster)
    tuned = tune_recipe(
        tiny_recipe,
        tmp_path / "space.yaml",
        tiny_folder,
        num_epochs=20,
        search="grid",
        scheduler="none",
        resources=TrialResources(concurrent=1),
        runs_dir=tmp_path,
        name="mine",
    )
    assert not {event.number for event in record.read()[before:]} & ended
    assert [row.scores for row in tuned.trials] == undisturbed


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_trial_that_loses_a_worker_resumes(
    cluster, undisturbed, tmp_path, tiny_recipe, tiny_folder, num_workers
):
    space = write_space(tmp_path, "optim.learning_rate: {choice: [1e-2, 2e-2]}\n")
    process_name = "ImplicitFunc" if num_workers == 1 else "RayTrainWorker"

    class Killer(Heard):
        def on_update(self, rows, num_trials, num_epochs):
            super().on_update(rows, num_trials, num_epochs)
            if any(row.num_epochs == 5 for row in rows) and not self.trials:
                self.trials.append("killed")
                workers = [
                    process
                    for process in psutil.Process().children(recursive=True)
                    if process_name in " ".join(process.cmdline())
                ]
                # The newest: processes of an earlier search may still be ending.
                max(workers, key=lambda process: process.create_time()).kill()

    killer = Killer()
    settings = {"search": "grid", "num_epochs": 20, "runs_dir": tmp_path, "name": "mine"}
    # One trial at a time: the worker that is killed is that of the trial with five epochs.
    resources = TrialResources(num_workers=num_workers, concurrent=1)
    tuned = tune_recipe(
        tiny_recipe, space, tiny_folder, listener=killer, resources=resources, **settings
    )
    assert killer.trials[0] == "killed"
    assert "lost its worker and is restarted" in (tuned.folder / "log.txt").read_text()
    assert [row.num_epochs for row in tuned.trials] == [20, 20]
    first = [
        event.report.duration_s
        for event in Record(tuned.folder / "record.jsonl").read()
        if isinstance(event, Reported) and event.report.epoch == 1
    ]
    assert len(first) == 3  # the lost trial reports its first epoch again, but does not repeat it
    assert len(set(first)) == 2
    if num_workers == 1:  # two see half of each batch
        assert [row.scores for row in tuned.trials] == undisturbed[:2]
