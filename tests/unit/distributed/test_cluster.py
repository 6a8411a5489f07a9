"""Addresses of clusters, before Ray is asked."""

from __future__ import annotations

import socket

import pytest

from sgnray.distributed.cluster import check_listening
from sgnray.errors import ClusterError


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def server(request):
    family, host = request.param
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listening:
        yield host, listening.getsockname()[1]


def test_what_listens_is_taken_in_all_its_spellings(server):
    host, port = server
    spellings = [f"[{host}]:{port}", f"ray://[{host}]:{port}"] if ":" in host else [
        f"{host}:{port}", f"ray://{host}:{port}"]  # fmt: skip
    for address in spellings:
        check_listening(address)
    check_listening("auto")


def test_what_does_not_listen_is_told_at_once(server):
    host, _ = server
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with pytest.raises(ClusterError, match="no Ray cluster answers") as caught:
        check_listening(address)
    assert caught.value.where == address


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://cluster:8265"])
def test_a_dashboard_is_told_apart(address):
    with pytest.raises(ClusterError, match="the address of a dashboard"):
        check_listening(address)
