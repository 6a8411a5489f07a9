"""How a cluster is divided among trials."""

import pytest

from sgnray.distributed.cluster import Resources
from sgnray.errors import ClusterError, UsageError
from sgnray.tune.trial.job import Share
from sgnray.tune.trial.resources import Layout, Wish, held_cluster, lay_out

LAPTOP = Resources(num_cpus=8, num_gpus=0, is_local=True)
CLUSTER = Resources(num_cpus=64, num_gpus=4, is_local=False)


@pytest.mark.parametrize(
    ("wish", "resources", "num_trials", "expected"),
    [
        (Wish(), LAPTOP, 16, Layout(Share(1, 1, 0.0), 8)),
        (Wish(), LAPTOP, 2, Layout(Share(1, 4, 0.0), 2)),
        (Wish(concurrent=2), LAPTOP, 16, Layout(Share(1, 4, 0.0), 2)),
        (Wish(cpus_per_trial=3), LAPTOP, 16, Layout(Share(1, 3, 0.0), 2)),
        (Wish(workers_per_trial=2), LAPTOP, 16, Layout(Share(2, 2, 0.0), 4)),
        (Wish(), CLUSTER, 99, Layout(Share(1, 1, 1.0), 4)),
        (Wish(gpus_per_trial=0.25), CLUSTER, 99, Layout(Share(1, 1, 0.25), 16)),
        (Wish(gpus_per_trial=0.0), CLUSTER, 99, Layout(Share(1, 1, 0.0), 64)),
        (Wish(workers_per_trial=2), CLUSTER, 99, Layout(Share(2, 2, 2.0), 2)),
    ],
)
def test_each_trial_gets_its_share(wish, resources, num_trials, expected):
    assert lay_out(wish, resources, num_trials) == expected


@pytest.mark.parametrize(
    "wish", [Wish(concurrent=5), Wish(gpus_per_trial=5.0), Wish(cpus_per_trial=65)]
)
def test_what_has_no_room_is_refused(wish):
    with pytest.raises(ClusterError, match="trials at once need"):
        lay_out(wish, CLUSTER, 99)


def test_workers_without_a_cpu_each_are_refused_before_ray_starts():
    with (
        pytest.raises(UsageError, match="2 workers cannot share 1 CPUs"),
        held_cluster(None, Wish(cpus_per_trial=1, workers_per_trial=2)),
    ):
        pass


def test_threads_are_the_workers_share():
    assert Share(2, 5, 0.0).num_threads == 2
