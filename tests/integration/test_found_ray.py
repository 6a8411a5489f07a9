"""A Ray that `ray start` started on this machine: how it is found, and what its GPUs are worth."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sgnray.distributed.address import find_address

from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# What `find_address` returns, before and after this process starts a Ray for itself alone.
FIND = """
import sys, ray
from sgnray.distributed.address import find_address
print(find_address(None))
if "alone" in sys.argv:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    print(find_address(None))
"""


@pytest.fixture
def host(monkeypatch):
    with hosts(1) as (built,):
        monkeypatch.delenv("RAY_TMPDIR")
        yield built


def find(host, *words):
    process = host.start([sys.executable, "-c", FIND, *words], stdout=subprocess.PIPE)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return printed.decode().split()


def test_a_ray_with_its_own_temporary_folder_is_found(host):
    assert find(host, "alone") == ["None", "None"]
    host.start_head()
    assert find(host) == [host.ray_address]
    assert find_address(None) != host.ray_address  # it is on another network
    host.kill_all()
    assert find(host) == ["None"]


# What `connected` says to the address of a cluster.
CONNECT = """
import sys
from sgnray.distributed.cluster import connected
from sgnray.errors import ClusterError
try:
    with connected(sys.argv[1], num_workers=1):
        print("connected")
except ClusterError as error:
    print(error.what)
"""


def test_a_machine_that_is_not_a_node_of_the_cluster_is_refused_at_once(host):
    """It sees no process of Ray, as another machine."""
    host.start_head()
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [sys.executable, "-c", CONNECT, host.ray_address]
    for words, printed in (
        (command, "connected"),
        ([*alone, *command], "this machine is not a node of that Ray cluster"),
    ):
        process = host.start(words, stdout=subprocess.PIPE)
        assert process.communicate(timeout=300)[0].decode().strip() == printed


def test_a_gpu_that_torch_cannot_use_is_named(host, tiny_folder, tmp_path):
    """Ray counts it, and the worker's torch is for CPUs or its driver too old."""
    host.start_head("--num-gpus", "1", num_cpus=2, CUDA_VISIBLE_DEVICES="99")
    command = ["sgn", "train", f"--data={tiny_folder}", "--case=cv", f"--runs={tmp_path}"]
    options = ["--workers=1", "--device=cuda", f"--address={host.ray_address}"]
    process = host.start([*command, *options], stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "error: Ray gave this worker a GPU that its torch cannot use" in err.decode()
