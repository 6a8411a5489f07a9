"""A Ray of this machine that requires a token, as `ray start` does once there is one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Prints what an actor answers, which gets its work through the driver.
ASK = """
import json, sys
from sgnray.distributed.pool import run_on_actors
from sgnray.errors import ClusterError
address = sys.argv[1] if sys.argv[1:] else None
try:
    answers = run_on_actors(lambda job, device: 2 * job, [21], workers=1, address=address, now="")
    print(json.dumps([*answers]))
except ClusterError as error:
    print(json.dumps([error.what, error.now]))
"""


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host whose user has a token, and nothing says whether Ray requires it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(f"{7:064x}")
    monkeypatch.setenv("HOME", str(tmp_path))
    with hosts(1) as (built,), pytest.MonkeyPatch.context() as inner:
        inner.delenv("RAY_AUTH_MODE")
        inner.delenv("RAY_TMPDIR", raising=False)
        yield built


def ask(host, *address):
    process = host.start([sys.executable, "-c", ASK, *address], stdout=subprocess.PIPE)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return json.loads(printed)


def test_the_users_token_opens_the_ray_of_this_machine(host, tmp_path):
    host.start_head()
    assert ask(host) == ask(host, host.ray_address) == ask(host, "auto") == [42]
    (tmp_path / ".ray" / "auth_token").write_text(f"{8:064x}")
    what, now = ask(host, host.ray_address)
    assert what == "no Ray cluster answers"
    assert "RAY_AUTH_MODE=token" in now


def test_no_token_is_sent_to_a_ray_that_requires_none(host):
    """Its workers would send none to this process, which would then require one."""
    host.start_head(RAY_AUTH_MODE="disabled")
    assert ask(host) == [42]
