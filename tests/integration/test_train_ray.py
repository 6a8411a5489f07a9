"""Training on a real Ray cluster: DDP, run folders, faults, and a return to one process."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray

from sgnray.distributed.address import check_listening
from sgnray.distributed.cluster import connected
from sgnray.distributed.launcher import RayLauncher
from sgnray.distributed.precision import choose_precision
from sgnray.distributed.resources import Resources, WorkerRequest, Workers
from sgnray.distributed.train_workers import RAY_TRAIN_VARIABLES, START_TIMEOUT
from sgnray.errors import ClusterError, SgnError, UsageError
from sgnray.train import train_run, train_seeds

from ..processes import wait_for
from .disturbed import assert_undisturbed, train_workers

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray_cluster():
    """One local cluster for all tests here; each launch uses it and leaves it running."""
    with connected(num_workers=3):
        yield


def read_losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines]


@pytest.mark.parametrize(
    "name", ["WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError"]
)
def test_ray_still_has_the_errors_that_are_known_by_name(name):
    """They are not public: if one is renamed, the launcher takes it for a lost worker."""
    sources = (Path(ray.__file__).parent / "train").rglob("*.py")
    assert any(f"\nclass {name}(" in source.read_text("utf-8") for source in sources)


def test_one_ray_worker_gives_the_same_run_as_this_process(
    tiny_recipe, tiny_folder, tmp_path, monkeypatch
):
    recipe = tiny_recipe.replacing({"train.num_epochs": 2})
    here = train_run(recipe, tiny_folder, runs_dir=tmp_path / "here", device="cpu")
    for name in RAY_TRAIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    seen = []
    there = train_run(
        recipe,
        tiny_folder,
        runs_dir=tmp_path / "there",
        workers=1,
        device="cpu",
        on_epoch=lambda result: seen.append(RAY_TRAIN_VARIABLES.items() <= os.environ.items()),
    )
    assert seen == [True, True]
    assert not RAY_TRAIN_VARIABLES.keys() & os.environ.keys()  # for the user's own Ray Train
    assert there.folder.name == here.folder.name
    assert read_losses(there.folder) == pytest.approx(read_losses(here.folder), abs=1e-6)
    assert there.report.num_correct == here.report.num_correct


def test_one_process_then_two_workers_then_one_process(tiny_recipe, tiny_folder, tmp_path):
    """A run resumes from its folder, whatever trained it before; a caller's exception stops it."""

    class Interrupted(Exception):
        pass

    def stop_at(epoch):
        def on_epoch(result):
            if result.epoch == epoch:
                raise Interrupted

        return on_epoch

    settings = {"runs_dir": tmp_path, "device": "cpu", "name": "mixed"}
    folder = tmp_path / "mixed"
    for workers, epoch in ((0, 1), (2, 2)):
        with pytest.raises(Interrupted):
            train_run(
                tiny_recipe, tiny_folder, **settings, workers=workers, on_epoch=stop_at(epoch)
            )
        assert len(read_losses(folder)) == epoch
        assert not (folder / "report.json").exists()
    mixed = train_run(tiny_recipe, tiny_folder, **settings, workers=0)
    assert mixed.resumed_from == 2
    assert len(read_losses(folder)) == 4
    checkpoints = sorted(folder.glob("checkpoints/epoch-*"))
    assert [checkpoint.name for checkpoint in checkpoints] == ["epoch-0003", "epoch-0004"]
    again = train_run(tiny_recipe, tiny_folder, **settings, workers=0)
    assert again.resumed_from == 4
    assert again.report.num_correct == mixed.report.num_correct


def test_a_worker_error_reaches_the_user_unchanged(tiny_recipe, tiny_folder, tmp_path):
    with pytest.raises(SgnError, match="no longer a finite number") as caught:
        train_run(
            tiny_recipe.replacing({"optim.learning_rate": 1e30}),
            tiny_folder,
            runs_dir=tmp_path,
            workers=1,
            device="cpu",
            max_failures=3,
        )
    assert caught.value.where.startswith("epoch ")
    assert "clips" in caught.value.problems[0].where


@pytest.mark.slow
def test_seeds_share_a_cluster(tiny_recipe, tiny_folder, tmp_path):
    """Side by side, each with its share of the CPUs; one alone would ask for all of them."""
    recipe = tiny_recipe.replacing({"train.num_epochs": 1, "optim.milestones": ()})
    report = train_seeds(
        recipe,
        tiny_folder,
        num_seeds=2,
        workers=1,
        runs_dir=tmp_path,
        device="cpu",
        request=WorkerRequest(wait_s=200),
    )
    assert report.missing == {}
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/environment.json")]
    assert [record["threads"] for record in records] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_the_precision_is_decided_once_for_all_seeds(
    tiny_recipe, tiny_folder, tmp_path, monkeypatch, workers
):
    """Here and not by each seed, whose worker may have other hardware; also in the next command."""
    has_bf16 = choose_precision("cpu") == "bf16"
    expected = "float32" if has_bf16 else "bf16"
    values = {"train.num_epochs": 1, "optim.milestones": (), "train.precision": "auto"}
    train = partial(
        train_seeds,
        tiny_recipe.replacing(values),
        tiny_folder,
        workers=workers,
        runs_dir=tmp_path,
        device="cpu",
    )
    with monkeypatch.context() as patch:
        patch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": not has_bf16})
        first = train(num_seeds=1)
    both = train(num_seeds=2)
    assert (first.missing, both.missing) == ({}, {})
    assert both.scores[:1] == first.scores
    assert Path(both.path).name == f"{Path(first.scores[0].run).name}-seeds2.json"
    assert both.recipe.train.precision == first.recipe.train.precision == expected
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/environment.json")]
    assert [record["precision"] for record in records] == [expected, expected]


@pytest.mark.parametrize(
    "train", [train_run, partial(train_seeds, num_seeds=2)], ids=["run", "seeds"]
)
def test_a_local_ray_without_a_gpu(tiny_recipe, tiny_folder, tmp_path, train):
    with pytest.raises(UsageError, match="no GPU that Ray can use"):
        train(tiny_recipe, tiny_folder, runs_dir=tmp_path, workers=2, device="cuda")
    assert not list(tmp_path.iterdir())


class SlowToLoad:
    """Slow to unpickle on a worker, as if it imported torch there."""

    def __reduce__(self):
        return time.sleep, (8,)


def start(workers, work=None, on_message=print, **asked):
    """Launch workers as on a shared cluster; return what rank 0 returns."""
    launcher = RayLauncher(
        Resources.now(is_local=False),
        Workers.of(workers),
        device="cpu",
        max_failures=0,
        request=WorkerRequest(num_cpus=1, **asked),
    )
    work = work or partial(lambda slow, worker, state: worker.world.size, SlowToLoad())
    return launcher.run(work, name="start", state=lambda: None, on_message=on_message)


@pytest.mark.slow
def test_an_error_of_the_caller_is_not_one_of_the_cluster():
    """Such as that of a pipe whose reader has gone, when a message is printed."""

    def fail(message):
        raise BrokenPipeError(message)

    with pytest.raises(BrokenPipeError, match="epoch"):
        start(1, lambda worker, state: worker.deliver("epoch"), fail)


def pending_groups():
    groups = ray.util.placement_group_table().values()
    return [group for group in groups if group["state"] == "PENDING"]


@pytest.mark.slow
def test_an_elastic_run_whose_room_is_taken_starts_with_fewer_workers(monkeypatch, caplog):
    """Another job takes the room between the choice of the size and the start of the workers."""
    choose_size, sizes, others = RayLauncher._choose_size, [], []

    def take_room(launcher, wanted):
        sizes.append(choose_size(launcher, wanted))
        if not others:
            num_cpus = int(ray.cluster_resources()["CPU"])
            others.append(ray.util.placement_group([{"CPU": 1.0}] * (num_cpus - 1)))
            assert others[0].wait(300)
        return sizes[-1]

    monkeypatch.setattr(RayLauncher, "_choose_size", take_room)
    monkeypatch.setattr("sgnray.distributed.launcher._RETRY_START_S", 3.0)
    try:
        with caplog.at_level("WARNING", logger="sgnray"):
            assert start((1, 2), wait_s=100) == 1
    finally:
        for other in others:
            ray.util.remove_placement_group(other)
    assert sizes == [2, 1]
    assert "the room for 2 workers was taken before they got it" in caplog.text
    assert not pending_groups()


@pytest.mark.slow
def test_workers_that_die_while_they_start_count_as_lost():
    """Ray Train alone would start such workers again, without limit."""
    killed, is_over = set(), threading.Event()

    def kill_workers():
        while not is_over.wait(0.02) and len(killed) < 6:
            for worker in train_workers(os.getpid()):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                killed.add(worker.pid)

    killing = threading.Thread(target=kill_workers)
    killing.start()
    try:
        with pytest.raises(ClusterError, match="training stopped on the cluster"):
            start(1, wait_s=100)
    finally:
        is_over.set()
        killing.join()


@pytest.mark.slow
def test_a_slow_start_of_workers_does_not_count_as_waiting():
    """The wait ends once the workers have room, however slowly they start."""
    other = ray.util.placement_group([{"CPU": 1.0}] * int(ray.cluster_resources()["CPU"]))
    assert other.wait(300)
    is_over = threading.Event()

    def make_room():
        while not pending_groups() and not is_over.wait(0.1):
            pass
        ray.util.remove_placement_group(other)

    making_room = threading.Thread(target=make_room)
    making_room.start()
    try:
        assert start(2, wait_s=6.0) == 2
    finally:
        is_over.set()
        making_room.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ({"labels": {"zone": "b"}}, "2 workers with 1 CPU, zone=b each"),
        ({"accelerator_type": "A100"}, "2 workers with 1 CPU (A100) each"),
    ],
    ids=["label", "accelerator"],
)
def test_waiting_for_a_kind_of_node_that_the_cluster_lacks_ends(caplog, monkeypatch, asked, needed):
    """It has enough CPUs; a line is logged after 10 s, and the wait ends on time."""
    monkeypatch.setenv(START_TIMEOUT, "3")  # meant for other programs
    with (
        caplog.at_level("WARNING", logger="sgnray"),
        pytest.raises(ClusterError, match=re.escape(f"waited 12 s for {needed}")),
    ):
        start(2, wait_s=12.0, **asked)
    assert any(message.startswith(f"waiting for {needed}; ") for message in caplog.messages)
    assert_nothing_is_left()


def assert_nothing_is_left():
    """An autoscaler would start nodes for the requests of a run that has ended."""
    wait_for(
        lambda: "sgn-fit" not in [thread.name for thread in threading.enumerate()],
        threading.enumerate,
    )
    assert not pending_groups()


@pytest.mark.slow
def test_a_run_that_is_interrupted_while_it_waits_leaves_no_request(monkeypatch):
    def interrupt(_):
        if pending_groups():
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr("sgnray.distributed.launcher.RoomWatch.check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start(2, labels={"zone": "b"})
    assert_nothing_is_left()


def test_a_ray_is_known_by_its_address():
    check_listening(ray.get_runtime_context().gcs_address)


def test_a_run_survives_as_many_lost_workers_as_allowed(tiny_recipe, tiny_folder, tmp_path):
    """The resumed run is bitwise the uninterrupted one; one loss too many ends it."""
    run, to_lose = tmp_path / "run", [2, 4]

    def on_epoch(result):
        if to_lose and result.epoch >= to_lose[0]:
            del to_lose[0]
            train_workers(os.getpid())[-1].kill()

    with pytest.raises(ClusterError, match="training stopped on the cluster") as caught:
        train_run(
            tiny_recipe.replacing({"train.num_epochs": 20}),
            tiny_folder,
            workers=2,
            device="cpu",
            runs_dir=tmp_path,
            name=run.name,
            max_failures=1,
            on_epoch=on_epoch,
        )
    assert "--max-failures" in caught.value.now
    assert not to_lose
    assert 4 <= len(read_losses(run)) < 20
    resumes = "; the run resumes after its last finished epoch"
    assert resumes in (run / "log.txt").read_text()
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def test_batch_norm_that_cannot_be_synchronized_leaves_no_folder(
    tiny_folder, tiny_recipe, tmp_path
):
    recipe = tiny_recipe.replacing({"train.sync_batch_norm": True})
    with pytest.raises(UsageError, match="between GPUs only"):
        train_run(recipe, tiny_folder, workers=2, runs_dir=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
