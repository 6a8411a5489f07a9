"""Numbers of workers, and GPUs or CPUs on a cluster that has no GPU, or few CPUs, now."""

import dataclasses
from unittest.mock import MagicMock

import pytest
from ray.train import ControllerError

from sgnray.distributed import launcher
from sgnray.distributed.launcher import RayLauncher
from sgnray.distributed.resources import (
    Resources,
    WorkerRequest,
    Workers,
    check_without_ray,
    gpus_per_actor,
    parse_labels,
    parse_workers,
    use_gpu,
)
from sgnray.errors import ClusterError, UsageError

SCALED_TO_ZERO = Resources(num_cpus=0, num_gpus=0, is_local=False)


@pytest.mark.parametrize(
    ("text", "wanted", "fewest", "most", "is_elastic"),
    [
        ("0", 0, 0, 0, False),
        ("8", 8, 8, 8, False),
        ("1:4", (1, 4), 1, 4, True),
        ("2:2", (2, 2), 2, 2, False),
    ],
)
def test_a_number_or_a_range(text, wanted, fewest, most, is_elastic):
    assert parse_workers(text) == wanted
    workers = Workers.of(wanted)
    assert (workers.fewest, workers.most, workers.is_elastic) == (fewest, most, is_elastic)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1:", ":4", "4:1", "1:2:3", "1.5", " 2", "\u0663", "9" * 5000]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="invalid number of workers") as caught:
        parse_workers(text)
    assert caught.value.where == "--workers"


@pytest.mark.parametrize("wanted", [-1, (4, 1), (-1, 2)])
def test_the_library_refuses_invalid_numbers_too(wanted):
    with pytest.raises(UsageError, match="invalid number of workers"):
        Workers.of(wanted)


def test_a_range_that_starts_at_0_is_refused():
    with pytest.raises(UsageError, match="cannot grow"):
        parse_workers("0:4")


def test_auto_uses_cpus_where_there_is_no_gpu_and_says_so(caplog):
    assert not use_gpu("auto", SCALED_TO_ZERO, WorkerRequest())
    assert "--device cuda waits for GPUs" in caplog.text


@pytest.mark.parametrize(
    ("request_", "num_gpus"),
    [(WorkerRequest(accelerator_type="A100"), 1.0), (WorkerRequest(num_gpus=0.25), 0.25)],
)
def test_auto_waits_for_gpus_if_a_kind_or_a_share_is_requested(request_, num_gpus):
    assert use_gpu("auto", SCALED_TO_ZERO, request_)
    assert gpus_per_actor("auto", SCALED_TO_ZERO, request_) == num_gpus


@pytest.mark.parametrize("num_gpus", [None, 0.0, 0.25, 1, 2.0])
def test_a_share_of_a_gpu_or_whole_gpus(num_gpus):
    assert WorkerRequest(num_gpus=num_gpus).num_gpus == num_gpus


@pytest.mark.parametrize(
    ("device", "resources", "what"),
    [
        ("cpu", SCALED_TO_ZERO, "GPUs are requested for workers that use CPUs"),
        ("cpu", Resources(8, 8, is_local=True), "GPUs are requested for workers that use CPUs"),
        ("auto", Resources(8, 0, is_local=True), "this machine has no GPU that Ray can use"),
        ("cuda", Resources(8, 0, is_local=True), "this machine has no GPU that Ray can use"),
    ],
)
def test_a_share_of_a_gpu_that_no_worker_can_get_is_refused(device, resources, what):
    with pytest.raises(UsageError, match=what):
        use_gpu(device, resources, WorkerRequest(num_gpus=0.25))


def test_a_gpu_and_a_half_is_refused():
    with pytest.raises(UsageError, match=r"a worker cannot use 1\.5 GPUs"):
        WorkerRequest(num_gpus=1.5)


@pytest.mark.parametrize("resources", [SCALED_TO_ZERO, Resources(8, 8, is_local=True)])
def test_gpus_are_not_used_without_a_share_of_one(resources, caplog):
    without = WorkerRequest(num_gpus=0.0)
    with pytest.raises(UsageError, match="GPUs are requested, but none for a worker") as caught:
        gpus_per_actor("cuda", resources, without)
    assert caught.value.where == "--device cuda --gpus-per-worker 0"
    assert gpus_per_actor("auto", resources, without) == 0
    assert caplog.messages == []


def test_all_invalid_labels_are_named():
    with pytest.raises(UsageError) as caught:
        parse_labels(["zone=a", "zone", "b=!"])
    assert caught.value.what == "'zone', 'b=!' are not labels"


def test_all_options_that_need_workers_are_named():
    request = WorkerRequest(num_cpus=2, labels={"zone": "a", "kind": "b"}, wait_s=5)
    given = "--address auto --max-failures 3 --cpus-per-worker 2 --label zone=a --label kind=b"
    with pytest.raises(UsageError) as caught:
        check_without_ray("auto", request, max_failures=3)
    assert caught.value.where == f"{given} --wait 5s"
    assert caught.value.now.endswith(
        "or remove --address, --max-failures, --cpus-per-worker, --label, --wait"
    )


HEAD_ONLY = Resources(2, 0, is_local=False, node_cpus=(2,), free_cpus=2)


@pytest.mark.parametrize(
    ("resources", "num_workers", "num_cpus", "expected"),
    [
        (SCALED_TO_ZERO, 4, None, ["0 free CPUs"]),
        (HEAD_ONLY, 2, None, ["2 free CPUs"]),
        (HEAD_ONLY, 1, None, []),
        (HEAD_ONLY, 2, 8, []),
        (dataclasses.replace(HEAD_ONLY, is_local=True), 2, None, []),
    ],
)
def test_one_thread_because_the_cluster_is_small_now(
    caplog, resources, num_workers, num_cpus, expected
):
    launcher = RayLauncher(
        resources,
        Workers.of(num_workers),
        device="cpu",
        max_failures=0,
        request=WorkerRequest(num_cpus=num_cpus),
    )
    assert caplog.messages == [
        f"the cluster has {free} now: each worker uses 1 thread; --cpus-per-worker asks for more"
        for free in expected
    ]
    if expected:
        assert launcher.hardware.threads_per_worker == 1


class InsufficientClusterResourcesError(Exception):
    """As Ray calls it."""


def test_a_request_beyond_the_limits_of_the_autoscaler_is_not_repeated(monkeypatch):
    """It is not a lost worker."""
    failure = (
        "Insufficient cluster resources\nIt requires 4 but the maximum is 2.\nPlease reduce it"
    )
    outcome = ControllerError(InsufficientClusterResourcesError(failure))
    fake = MagicMock(outcome=outcome)
    monkeypatch.setattr(launcher, "RoomWatch", MagicMock())
    monkeypatch.setattr(launcher, "_Group", lambda *_: fake)
    monkeypatch.setattr(RayLauncher, "_follow", lambda *_: None)
    ray_launcher = RayLauncher(
        HEAD_ONLY, Workers.of(4), device="cpu", max_failures=3, request=WorkerRequest()
    )
    with pytest.raises(ClusterError, match="can never have 4 workers") as caught:
        ray_launcher.run(print, name="run", state=lambda: None, on_message=print)
    assert "It requires 4 but the maximum is 2." in caught.value.where
    assert caught.value.now.startswith("ask for less")


@pytest.mark.parametrize(("wait_s", "expected"), [(60, 45), (50, 40), (5, 0), (None, 0)])
def test_the_wait_to_learn_the_precision_is_part_of_the_wait(monkeypatch, wait_s, expected):
    room = MagicMock()
    room.return_value.__enter__.return_value.waited_s = 45
    monkeypatch.setattr(launcher, "Reservation", room)
    monkeypatch.setattr(launcher, "ask_precision", lambda *_: "bf16")
    ray_launcher = RayLauncher(
        HEAD_ONLY, Workers.of(1), device="cpu", max_failures=0, request=WorkerRequest(wait_s=wait_s)
    )
    assert ray_launcher.choose_precision() == "bf16"
    watch, group = MagicMock(), MagicMock(outcome=launcher._Finished(None))
    monkeypatch.setattr(launcher, "RoomWatch", watch)
    monkeypatch.setattr(launcher, "_Group", lambda *_: group)
    monkeypatch.setattr(RayLauncher, "_follow", lambda *_: None)
    for _ in range(2):
        ray_launcher.run(print, name="run", state=lambda: None, on_message=print)
    assert [call.kwargs["waited_s"] for call in watch.call_args_list] == [expected, 0]


def test_workers_share_the_cpus_of_large_nodes():
    cluster = Resources(128, 0, is_local=False, node_cpus=(64, 64), free_cpus=128)
    launcher = RayLauncher(
        cluster, Workers.of(2), device="cpu", max_failures=0, request=WorkerRequest()
    )
    assert launcher.hardware.threads_per_worker == 64
