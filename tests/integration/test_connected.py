"""A process that uses Ray already: it keeps its cluster, and another one is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import ray

from sgnray.distributed.cluster import connected, find_address
from sgnray.errors import UsageError

pytestmark = pytest.mark.ray

# Connects to the Ray of another process; prints whether that counts as its own.
OTHER = """
import json, sys, ray
from sgnray.distributed.cluster import connected, find_address
from sgnray.errors import UsageError
ray.init(sys.argv[1], log_to_driver=False)
found = []
for address in (None, "auto", sys.argv[1], "local"):
    try:
        with connected(address, num_workers=1) as resources:
            found.append(resources.is_local)
    except UsageError as error:
        found.append(error.what)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def address():
    with connected("local", num_workers=1) as resources:
        assert resources.is_local
        yield ray.get_runtime_context().gcs_address


def test_the_own_cluster_by_any_name(address):
    port = address.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", socket.gethostname())
    for name in (None, "auto", "local", address, *(f"{host}:{port}" for host in hosts)):
        with connected(name, num_workers=1) as resources:
            # By its address, it is a cluster that others may join.
            assert resources.is_local is (find_address(name) is None)


@pytest.mark.parametrize("other", ["127.0.0.1:1", "192.0.2.250:{port}", "no-such-host:{port}"])
def test_another_cluster_is_refused(address, other):
    other = other.format(port=address.rpartition(":")[2])
    refused = pytest.raises(UsageError, match="already uses another Ray")
    with refused as caught, connected(other, num_workers=1):
        raise AssertionError
    assert caught.value.where == f"{other}, and not {address}"


def test_the_cluster_of_another_process_is_not_local(address, tmp_path):
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path)}  # no Ray recorded its address there
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", OTHER, address],
        env=environment, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [False, False, False, "this process already uses another Ray"]
