"""The trackers of a search with their real libraries: one run for each trial, grouped."""

from __future__ import annotations

import pytest

from sgnray.train.tracking import trackers as tracking
from sgnray.tune.folder import claim_search
from sgnray.tune.running import RunningSearch
from sgnray.tune.trials import EpochReport, FailureReport

from ...processes import wait_for
from ...wandb_files import read_records

pytestmark = pytest.mark.usefixtures("tracker_environment")


@pytest.fixture
def run_search(tmp_path, make_plan, tiny_recipe, sampler):
    """Return the folder of a search of three trials: finished, failed, and cut and resumed."""

    def run(*names):
        plan = make_plan(recipe=tiny_recipe.replacing({"train.log": names}))
        with claim_search(tmp_path, "mine", plan) as folder:
            first = RunningSearch(folder, sampler, None)
            first.begin()
            for _ in range(3):
                first.next_trial()
            report(first, 1, 1)
            report(first, 3, 1)
            report(first, 1, 2)
            first.on_end(1, is_cut=False)
            first.on_report(2, FailureReport("ValueError: no", "Traceback"))
            first.on_end(2, is_cut=False)
            first.on_end(3, is_cut=True)
            first.end()
            second = RunningSearch(folder, sampler, None)
            second.begin()
            second.next_trial()
            report(second, 3, 1)  # a resumed trial first reports what it did before
            report(second, 3, 2)
            report(second, 3, 2)  # repeated after a lost worker
            second.on_end(3, is_cut=False)
            second.end()
        return folder.path

    return run


def report(search, number, epoch):
    loss = number + 1 / epoch
    search.on_report(
        number,
        EpochReport(epoch, epoch / 4, duration_s=2.0 * epoch, train_loss=loss, val_loss=loss),
    )


def losses(number):
    return [(epoch, number + 1 / epoch) for epoch in (1, 2)]


def test_tensorboard_has_each_trial(run_search):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_search("tensorboard") / "trackers"
    for number in (1, 3):
        events = EventAccumulator(str(folder / f"trial-{number:04d}" / "tensorboard")).Reload()
        assert [(e.step, e.value) for e in events.Scalars("train/loss")] == losses(number)
        assert [e.value for e in events.Scalars("val/top1")] == [0.25, 0.5]
        assert [e.value for e in events.Scalars("time/epoch_s")] == [2.0, 2.0]
    assert len(list(folder.glob("trial-*"))) == 3
    assert not list(folder.glob("*/curves.png"))


def test_mlflow_groups_the_trials_in_one_experiment(run_search):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    folder = run_search("mlflow") / "trackers"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in found.items()} == {
        "trial-0001": "FINISHED",
        "trial-0002": "KILLED",
        "trial-0003": "FINISHED",
    }
    for number in (1, 3):
        run = found[f"trial-{number:04d}"]
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in points] == losses(number)
        assert run.data.tags["search"] == "mine"
        assert run.data.params["train.num_epochs"] == "2"
    rates = {run.data.params["optim.learning_rate"] for run in found.values()}
    assert len(rates) == 3


def test_wandb_groups_the_trials(run_search):
    pytest.importorskip("wandb")
    folder = run_search("wandb") / "trackers"

    def read_groups():
        groups = {}
        for path in folder.glob("trial-*/wandb/offline-run-*/run-*.wandb"):
            for record in read_records(path):
                if record.run.run_id:
                    groups[record.run.display_name] = record.run.run_group
        return groups

    expected = {f"trial-{number:04d}": "mine" for number in (1, 2, 3)}
    # W&B's own process closes its file a little later.
    wait_for(lambda: read_groups() == expected, read_groups)


def test_a_failing_tracker_is_reported_once_per_command(run_search, monkeypatch, caplog):
    class Broken:
        def start(self, recipe, run, history):
            return 0

        def log(self, epoch, metrics):
            raise OSError("no space left")

        def finish(self, report, *, is_complete):
            pass

    monkeypatch.setitem(tracking._KINDS, "wandb", lambda _: Broken())
    run_search("wandb")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == 2 * ["wandb failed and is disabled: no space left"]


def test_trackers_do_not_change_which_search_it_is(make_plan, tiny_recipe):
    tracked = tiny_recipe.replacing({"train.log": ("tensorboard",)})
    assert make_plan(recipe=tracked).folder_name() == make_plan().folder_name()


def test_a_tracker_that_does_not_start_for_a_later_trial_does_not_end_the_search(
    tmp_path, make_plan, tiny_recipe, sampler, caplog
):
    plan = make_plan(recipe=tiny_recipe.replacing({"train.log": ["tensorboard"]}))
    with claim_search(tmp_path, "mine", plan) as folder:
        search = RunningSearch(folder, sampler, None)
        search.begin()
        search.next_trial()
        second = folder.trial_dir(2)
        second.mkdir(parents=True)
        (second / "tensorboard").touch()  # a file where its folder belongs
        search.next_trial()
        report(search, 2, 1)
        report(search, 1, 1)
        search.end()
    assert [row.num_epochs for row in search.table.rows] == [1, 1]
    assert caplog.text.count("tensorboard failed and is disabled") == 1
