"""A process that uses Ray already: it keeps its cluster, and another one is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress

import pytest
import ray

from sgnray.distributed.address import find_address
from sgnray.distributed.cluster import connected
from sgnray.distributed.precision import choose_precision
from sgnray.errors import UsageError

from .disturbed import wait_until

pytestmark = pytest.mark.ray

# Connects to the Ray of another process; prints whether that counts as its own.
OTHER = """
import json, sys, ray
from sgnray.distributed.cluster import connected
from sgnray.distributed.address import find_address
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

# Connects with Ray Client to the server at a port, and prints what `connected` says to that.
CLIENT = """
import json, sys, ray
from sgnray.distributed.cluster import connected
from sgnray.errors import UsageError
ray.init(f"ray://127.0.0.1:{sys.argv[1]}", logging_level="ERROR")
try:
    with connected(num_workers=1):
        pass
except UsageError as error:
    print(json.dumps(error.what))
"""

# Prints the device and precision of workers of that Ray, whose hardware this process lacks.
RESOLVE = """
import json, sys, torch
from sgnray.distributed.precision import resolve_for_workers
torch.cpu.get_capabilities = lambda: {"avx512_bf16": sys.argv[2] != "bf16"}
print(json.dumps(resolve_for_workers("auto", sys.argv[1], 1, None)))
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


def test_ray_client_is_refused(address, tmp_path):
    with pytest.raises(UsageError, match="Ray Client"), connected("ray://a:10001", num_workers=1):
        raise AssertionError
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = ["--mode", "specific-server", "--address", address, "--port", port]
    output = tmp_path / "server.txt"
    with output.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "ray.util.client.server", *words, "--host", "127.0.0.1"],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: accepts(port), server, output=output)
        assert server.poll() is None, output.read_text()  # not another program at its port
        assert run_other(CLIENT, port).startswith("Ray Client (ray://) is not supported")
    finally:
        server.kill()
        server.wait()


def accepts(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=10):
        return True
    return False


def run_other(program, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | environment, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_cluster_of_another_process_is_not_local(address, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = run_other(OTHER, address, RAY_TMPDIR=str(tmp_path))  # no Ray recorded its address there
    assert found == [False, False, False, "this process already uses another Ray"]


def test_a_worker_of_an_existing_cluster_decides_on_the_precision(address):
    here = choose_precision("cpu")
    assert run_other(RESOLVE, address, here) == ["cpu", here]
