"""Training on a real Ray cluster: DDP, run folders, faults, and the way back to one process."""

from __future__ import annotations

import json

import pytest
import ray

from sgnray.distributed.cluster import connected
from sgnray.errors import ClusterError, SgnError, UsageError
from sgnray.train import train_run

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray_cluster():
    """One local cluster for all tests here; each launch finds it running and leaves it so."""
    with connected(num_workers=3):
        yield


def with_epochs(recipe, num_epochs):
    train = recipe.train.model_copy(update={"num_epochs": num_epochs})
    return recipe.model_copy(update={"train": train})


def read_losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines]


def test_one_worker_on_ray_is_the_run_in_this_process(tiny_recipe, tiny_folder, tmp_path):
    recipe = with_epochs(tiny_recipe, 2)
    here = train_run(recipe, tiny_folder, runs_dir=tmp_path / "here", device="cpu")
    there = train_run(recipe, tiny_folder, runs_dir=tmp_path / "there", workers=1, device="cpu")
    assert there.folder.name == here.folder.name
    assert read_losses(there.folder) == pytest.approx(read_losses(here.folder), abs=1e-6)
    assert there.report.num_correct == here.report.num_correct


def test_two_workers_then_one_process_then_two_again(tiny_recipe, tiny_folder, tmp_path):
    """The folder is all that counts: who trained before does not."""

    class Interrupted(Exception):
        pass

    def stop_at(epoch):
        def on_epoch(result):
            if result.epoch == epoch:
                raise Interrupted

        return on_epoch

    settings = {"runs_dir": tmp_path, "device": "cpu", "name": "mixed"}
    first = train_run(tiny_recipe, tiny_folder, **settings | {"name": "straight"}, workers=2)
    assert [item.name for item in sorted(first.folder.glob("checkpoints/epoch-*"))] == [
        "epoch-0003",
        "epoch-0004",
    ]
    with pytest.raises(Interrupted):
        train_run(tiny_recipe, tiny_folder, **settings, on_epoch=stop_at(2))
    mixed = train_run(tiny_recipe, tiny_folder, **settings, workers=2)
    assert mixed.resumed_from == 2
    assert len(read_losses(mixed.folder)) == 4
    again = train_run(tiny_recipe, tiny_folder, **settings, workers=0)
    assert again.resumed_from == 4
    assert again.report.num_correct == mixed.report.num_correct


def test_an_error_of_a_worker_reaches_the_user_as_it_was(tiny_recipe, tiny_folder, tmp_path):
    optim = tiny_recipe.optim.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SgnError, match="no longer a finite number") as caught:
        train_run(
            tiny_recipe.model_copy(update={"optim": optim}),
            tiny_folder,
            runs_dir=tmp_path,
            workers=1,
            device="cpu",
            max_failures=3,
        )
    assert caught.value.where.startswith("epoch ")
    assert "clips" in caught.value.problems[0].where


def test_only_lost_workers_are_tried_again():
    """What was raised for the user would only come again, as often as failures are survived."""
    from ray.exceptions import ActorDiedError, RayTaskError
    from ray.train import ControllerError, FailureConfig, WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2._internal.execution.failure_handling import FailureDecision

    from sgnray.distributed.ray_trainer import LostWorkers

    def decide(error):
        return LostWorkers(FailureConfig(max_failures=1)).make_decision(error)

    ours = UserExceptionWithTraceback(SgnError("nan", where="epoch 1", now="try"), "")
    reset = UserExceptionWithTraceback(RuntimeError("connection reset by peer"), "")
    assert decide(WorkerGroupError("", {0: reset, 1: ours})) == FailureDecision.RAISE
    assert decide(WorkerGroupError("", {0: reset, 1: ActorDiedError()})) == FailureDecision.RETRY
    # A worker that is lost while its group starts: Ray alone would give up.
    starting = ControllerError(RayTaskError("start", "", RuntimeError("no peer")))
    assert decide(starting) == FailureDecision.RETRY
    assert decide(ControllerError(ValueError("a bug"))) == FailureDecision.RAISE


def test_room_is_what_is_free_and_what_our_own_workers_hold():
    from sgnray.distributed.ray_trainer import room_on_nodes

    group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}])
    ray.get(group.ready())
    (held,) = room_on_nodes().values()
    assert held["CPU"] == 3
    ray.util.remove_placement_group(group)


def test_what_the_caller_raises_stops_the_run(tiny_recipe, tiny_folder, tmp_path):
    class Refused(Exception):
        pass

    def refuse(result):
        raise Refused

    recipe = with_epochs(tiny_recipe, 500)
    with pytest.raises(Refused):
        train_run(recipe, tiny_folder, runs_dir=tmp_path, workers=1, device="cpu", on_epoch=refuse)
    (run,) = tmp_path.iterdir()
    assert not (run / "report.json").exists()


def test_more_gpus_than_there_are(tiny_recipe, tiny_folder, tmp_path):
    with pytest.raises(ClusterError, match="2 workers need 2 GPUs, and the cluster has 0"):
        train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, workers=2, device="cuda")
    assert not list(tmp_path.iterdir())


def test_batch_norm_that_cannot_be_synchronized_leaves_no_folder(
    tiny_folder, tiny_recipe, tmp_path
):
    train = tiny_recipe.train.model_copy(update={"sync_batch_norm": True})
    recipe = tiny_recipe.model_copy(update={"train": train})
    with pytest.raises(UsageError, match="between GPUs only"):
        train_run(recipe, tiny_folder, workers=2, runs_dir=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
