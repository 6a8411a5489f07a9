"""Trackers with their real libraries: what they wrote is read back by those libraries."""

import json
import os
from itertools import pairwise
from types import SimpleNamespace

import pytest

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.errors import RunError, SgnError
from sgnray.train.run import train_run
from sgnray.train.tracking import trackers as tracking
from sgnray.train.tracking.curves import CURVES_FILE
from sgnray.train.tracking.trackers import MEMORY_FILE, Trackers, tracked

from ...processes import wait_for
from ...wandb_files import read_records

pytestmark = pytest.mark.usefixtures("tracker_environment")

REPORT = SimpleNamespace(
    top1=0.75, top5=1.0, loss=0.5, evaluated=SimpleNamespace(epoch=4), num_clips=9
)
HISTORY = [
    {"train/loss": 4.0 - epoch, "train/top1": epoch / 5, "lr": 1e-3, "time/epoch_s": 0.5}
    for epoch in range(1, 5)
]
LOSSES = [(epoch, 4.0 - epoch) for epoch in range(1, 5)]


@pytest.fixture
def recipe(tiny_recipe):
    def asking(*names):
        return tiny_recipe.replacing({"train.log": names})

    return asking


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def follow_twice(recipe, run):
    """A run that is interrupted after two epochs, the second not logged, and is then resumed."""
    with tracked(recipe, run, []) as trackers:
        trackers.log(HISTORY[:1])
    with tracked(recipe, run, HISTORY[:2]) as trackers:
        trackers.log(HISTORY[:3])
        trackers.log(HISTORY[:3])  # repeated after a lost worker
        trackers.log(HISTORY)
        trackers.finish(REPORT)


class Broken:
    """A tracker that fails at a given call."""

    def __init__(self, place):
        self.place, self.calls = place, []

    def start(self, recipe, run, history):
        return self._at("start") or 0

    def log(self, epoch, metrics):
        self._at("log")

    def finish(self, report, *, is_complete):
        self._at("finish")

    def _at(self, place):
        self.calls.append(place)
        if place == self.place:
            raise OSError("no space left\nwhatsoever")


def test_tensorboard_reads_each_epoch_once(recipe, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow_twice(recipe("tensorboard"), run)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == LOSSES
    assert [(e.step, e.value) for e in events.Scalars("test/top1")] == [(4, 0.75)]
    times = [event.wall_time for event in events.Scalars("train/loss")]
    assert [b - a for a, b in pairwise(times)] == pytest.approx([0.5] * 3)
    assert len(list((run.path / "tensorboard").iterdir())) == 1


def test_mlflow_reads_each_epoch_once(recipe, run):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    follow_twice(recipe("mlflow"), run)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run.path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("sgnray")
    (found,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == LOSSES
    assert found.data.metrics["test/top1"] == 0.75
    assert found.data.params["optim.batch_size"] == "6"
    assert (found.info.status, found.info.run_name) == ("FINISHED", run.path.name)
    assert {path.name for path in run.path.iterdir()} == {"mlflow", MEMORY_FILE, CURVES_FILE}


def test_wandb_stays_on_this_machine(recipe, run):
    pytest.importorskip("wandb")
    follow_twice(recipe("wandb"), run)
    files = sorted((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2  # one for each launch, of one id: `wandb sync` joins them
    assert len({path.stem for path in files}) == 1

    def losses():
        return [loss for path in files for loss in logged(path)]

    wait_for(lambda: losses() == LOSSES, losses)  # W&B's own process closes its file a little later
    memory = json.loads((run.path / MEMORY_FILE).read_text())
    assert memory["wandb"]["num_epochs"] == 4


def logged(path):
    """(step, training loss) of an offline file of W&B."""
    for record in read_records(path):
        items = {".".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        if "train/loss" in items:
            yield record.history.step.num, json.loads(items["train/loss"])


@pytest.mark.parametrize("place", ["log", "finish"])
def test_a_failing_tracker_is_reported_once_then_disabled(recipe, run, monkeypatch, caplog, place):
    broken = Broken(place)
    monkeypatch.setitem(tracking._KINDS, "wandb", lambda _: broken)
    with tracked(recipe("wandb"), run, []) as trackers:
        for epoch in range(1, 5):
            trackers.log(HISTORY[:epoch])
        trackers.finish(REPORT)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        "wandb failed and is disabled: no space left"
    ]
    assert broken.calls.count(place) == 1
    assert (run.path / CURVES_FILE).exists()  # the others continued


def test_a_tracker_that_cannot_start_is_an_error_and_the_others_are_closed(
    recipe, run, monkeypatch
):
    broken, whole = Broken("start"), Broken("")
    monkeypatch.setitem(tracking._KINDS, "wandb", lambda _: broken)
    monkeypatch.setitem(tracking._KINDS, "tensorboard", lambda _: whole)
    with (
        pytest.raises(SgnError, match="wandb did not start: no space left"),
        tracked(recipe("tensorboard", "wandb"), run, HISTORY),
    ):
        pass
    assert whole.calls == ["start", "finish"]


def test_a_newer_memory_is_refused(recipe, run):
    pytest.importorskip("wandb")
    (run.path / MEMORY_FILE).write_text('{"format_version": 2}')
    trackers = Trackers()
    with pytest.raises(SgnError, match="format version 2") as caught:
        trackers.start(recipe("wandb"), run, [])
    assert isinstance(caught.value.__cause__, RunError)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_finds_its_settings_in_each_call_and_leaves_none(recipe, run, monkeypatch, name):
    """A notebook that trains first can still log to W&B's server afterwards."""
    found, key = [], next(iter(tracking._ENVIRONMENT[name]))

    class Settings(Broken):
        def _at(self, place):
            found.append(os.environ[key])

    monkeypatch.setitem(tracking._KINDS, name, lambda _: Settings(""))
    before = dict(os.environ)
    with tracked(recipe(name), run, []) as trackers:
        assert dict(os.environ) == before
        trackers.log(HISTORY[:1])
    assert dict(os.environ) == before
    assert found == [tracking._ENVIRONMENT[name][key]] * 3


def test_a_run_leaves_the_environment_alone(tiny_recipe, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else torch sets it
    before = dict(os.environ)
    train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, device="cpu")
    assert dict(os.environ) == before
