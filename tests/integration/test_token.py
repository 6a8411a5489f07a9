"""A Ray of this machine that requires a token, as `ray start` does once there is one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONNECT = """
import json, sys
from sgnray.distributed.cluster import connected
from sgnray.errors import ClusterError
try:
    with connected(*sys.argv[1:], num_workers=1) as resources:
        print(json.dumps(resources.is_local))
except ClusterError as error:
    print(json.dumps([error.what, error.now]))
"""


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host whose user has a token, and a Ray that was started without a word about it."""
    with hosts(1) as (built,):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(f"{7:064x}")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("RAY_AUTH_MODE")
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        built.start_head()
        yield built


def connect(host, *address):
    process = host.start([sys.executable, "-c", CONNECT, *address], stdout=subprocess.PIPE)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return json.loads(printed)


def test_the_users_token_opens_the_ray_of_this_machine(host, monkeypatch, tmp_path):
    assert connect(host) is False
    assert connect(host, host.ray_address) is False
    assert connect(host, "auto") is False
    (tmp_path / ".ray" / "auth_token").write_text(f"{8:064x}")
    what, now = connect(host, host.ray_address)
    assert what == "no Ray cluster answers"
    assert "RAY_AUTH_MODE=token" in now
