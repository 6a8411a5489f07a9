"""How a cluster is divided among trials."""

import pytest
import ray

from sgnray.distributed.cores import num_cores
from sgnray.distributed.resources import Resources, WorkerRequest
from sgnray.errors import ClusterError, UsageError
from sgnray.tune.trial_resources import TrialResources

LAPTOP = Resources(num_cpus=8, num_gpus=0, is_local=True)
SCALED_TO_ZERO = Resources(num_cpus=0, num_gpus=0, is_local=False)
CLUSTER = Resources(num_cpus=64, num_gpus=4, is_local=False)
FREE = Resources(num_cpus=64, num_gpus=4, is_local=False, node_cpus=(64,), free_cpus=64)


@pytest.mark.parametrize(
    ("wanted", "cluster", "num_trials", "expected"),
    [
        (TrialResources(), LAPTOP, 16, TrialResources(1, 1, 0.0, 8)),
        (TrialResources(), LAPTOP, 2, TrialResources(1, 4, 0.0, 2)),
        (TrialResources(concurrent=2), LAPTOP, 16, TrialResources(1, 4, 0.0, 2)),
        (TrialResources(num_cpus=3), LAPTOP, 16, TrialResources(1, 3, 0.0, 2)),
        (TrialResources(num_workers=2), LAPTOP, 16, TrialResources(2, 2, 0.0, 4)),
        (TrialResources(), CLUSTER, 99, TrialResources(1, 1, 1.0, None)),
        (TrialResources(num_gpus=0.25), CLUSTER, 99, TrialResources(1, 1, 0.25, None)),
        (TrialResources(num_gpus=0.0), CLUSTER, 99, TrialResources(1, 1, 0.0, None)),
        (TrialResources(concurrent=5), CLUSTER, 99, TrialResources(1, 1, 1.0, 5)),
        (TrialResources(num_gpus=5.0), CLUSTER, 99, TrialResources(1, 1, 5.0, None)),
        (TrialResources(), SCALED_TO_ZERO, 99, TrialResources(1, 1, 0.0, None)),
        (TrialResources(num_workers=2), SCALED_TO_ZERO, 99, TrialResources(2, 2, 0.0, room=0)),
        (TrialResources(num_workers=2), CLUSTER, 99, TrialResources(2, 2, 2.0, room=2)),
        (TrialResources(2, concurrent=3), CLUSTER, 99, TrialResources(2, 2, 2.0, 3)),
        # Nodes with GPUs may have few CPUs: one for each worker.
        (TrialResources(), FREE, 2, TrialResources(1, 1, 1.0, None)),
        (TrialResources(num_gpus=0.0), FREE, 2, TrialResources(1, 32, 0.0, None)),
        (TrialResources(num_gpus=0.0, concurrent=2), FREE, 16, TrialResources(1, 32, 0.0, 2)),
    ],
)
def test_each_trial_gets_its_share(wanted, cluster, num_trials, expected):
    assert wanted.allocate(cluster, num_trials) == expected


def test_the_workers_of_a_trial_share_its_resources():
    resources = TrialResources(2, 5, 2.0, request=WorkerRequest(num_cpus=9, wait_s=60))
    assert resources.worker_request == WorkerRequest(num_cpus=2, num_gpus=1.0, wait_s=60)


def test_using_no_gpu_is_reported(caplog):
    TrialResources(num_workers=2).allocate(SCALED_TO_ZERO, 9)
    assert "the cluster has no GPU now: using CPUs; --gpus-per-trial 2" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "cluster", "is_small"),
    [
        (TrialResources(), SCALED_TO_ZERO, True),
        (TrialResources(num_cpus=4), SCALED_TO_ZERO, False),
        (TrialResources(num_gpus=1.0), SCALED_TO_ZERO, False),
        (TrialResources(num_gpus=0.0), FREE, False),
        (TrialResources(), LAPTOP, False),
    ],
)
def test_one_thread_because_the_cluster_is_small_now(caplog, wanted, cluster, is_small):
    wanted.allocate(cluster, 99)
    assert ("uses 1 thread; --cpus-per-trial asks for more" in caplog.text) is is_small


@pytest.mark.parametrize(
    ("wanted", "needed"),
    [
        (TrialResources(concurrent=9), "9 trials with 1 CPU each"),
        (TrialResources(num_gpus=1.0), "1 trial with 1 CPU and 1 GPU"),
        (TrialResources(num_cpus=9), "1 trial with 9 CPUs"),
        (TrialResources(num_cpus=5, concurrent=2), "2 trials with 5 CPUs each"),
        (TrialResources(num_workers=6, num_cpus=9), "1 trial with 9 CPUs"),
    ],
)
def test_a_request_larger_than_the_machine_is_refused(wanted, needed):
    with pytest.raises(UsageError) as caught:
        wanted.allocate(LAPTOP, 99)
    assert caught.value.what == f"this machine has no room for {needed}"


@pytest.mark.parametrize(
    ("wanted", "num_cpus"),
    [
        (TrialResources(num_cpus=10_000), None),
        (TrialResources(num_workers=5000, concurrent=2), 10_000),
        (TrialResources(num_workers=5000, num_cpus=5000, concurrent=2), 10_000),
    ],
)
def test_a_local_ray_gets_a_cpu_for_each_worker(monkeypatch, wanted, num_cpus):
    """One that has more than the machine has cores is for workers with one thread each."""
    seen = {}

    def start(**settings):
        seen.update(settings)
        raise RuntimeError("not started")

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(ClusterError, match="not started"), wanted.connected("local"):
        pass
    assert seen["num_cpus"] == (num_cpus or num_cores())


def test_workers_without_a_cpu_each_are_refused_before_ray_starts():
    with (
        pytest.raises(UsageError, match="2 workers cannot share 1 CPU"),
        TrialResources(num_workers=2, num_cpus=1).connected(None),
    ):
        pass


def test_threads_are_the_workers_share():
    assert TrialResources(2, 5).num_threads == 2


@pytest.mark.parametrize(("num_workers", "num_gpus"), [(1, 1.5), (2, 3.0)])
def test_a_worker_gets_whole_gpus_or_a_share_of_one(num_workers, num_gpus):
    with (
        pytest.raises(UsageError, match=r"a worker cannot use 1\.5 GPUs") as caught,
        TrialResources(num_workers, num_gpus=num_gpus).connected(None),
    ):
        pass
    assert caught.value.where == f"--gpus-per-trial {num_gpus:g}"


def test_two_workers_cannot_share_a_gpu():
    with (
        pytest.raises(UsageError, match="nccl cannot share a GPU") as caught,
        TrialResources(num_workers=2, num_gpus=1.0).connected(None),
    ):
        pass
    assert caught.value.where == "--gpus-per-trial 1"


@pytest.mark.parametrize(("num_workers", "num_gpus"), [(1, 2.0), (2, 4.0)])
def test_a_worker_trains_on_one_gpu(num_workers, num_gpus):
    with (
        pytest.raises(UsageError, match="a worker trains on one GPU") as caught,
        TrialResources(num_workers, num_gpus=num_gpus).connected("127.0.0.1:1"),
    ):
        pass
    assert caught.value.where == f"--gpus-per-trial {num_gpus:g}"
