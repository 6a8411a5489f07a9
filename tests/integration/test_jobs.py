"""`ray job submit -- sgn train`: a run that a cluster carries out with no terminal of ours."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.ray

RAY = str(Path(sys.executable).with_name("ray"))
SGN = str(Path(sys.executable).with_name("sgn"))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """(dashboard, environment) of a head that asks for a token and takes jobs.

    Jobs are started by an agent, and one whose port another Ray of this machine has takes none.
    """
    folder = tempfile.mkdtemp(prefix="sgn-ray-")  # short: socket paths have a limit
    port, dashboard, agent = free_port(), free_port(), free_port()
    token = tmp_path / "token"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    token.write_text(secrets.token_hex(32))
    command = [RAY, "start", "--head", "--port", str(port), "--num-cpus", "1", "--block",
               "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
               "--dashboard-agent-listen-port", str(agent),
               "--object-store-memory", "100000000", "--disable-usage-stats",
               "--temp-dir", folder]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(command, env=environment, **quiet)
    try:
        wait_for_dashboard(dashboard)
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_dashboard(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the dashboard does not answer")


def submit(train, dashboard, environment):
    """The dashboard answers before the agent that starts jobs does."""
    command = [RAY, "job", "submit", "--address", dashboard, "--", *train]
    for _ in range(20):
        submitted = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if "No available agent" not in submitted.stderr:
            break
        time.sleep(1)
    return submitted


def test_a_job_trains_on_a_cluster_that_asks_for_a_token(cluster, tiny_folder, tmp_path):
    dashboard, environment = cluster
    train = [SGN, "train", "--case", "cv", "--data", str(tiny_folder), "--workers", "1",
             "--runs", str(tmp_path / "runs"), "--name", "job", "--device", "cpu",
             "data.num_segments=8", "model.embedding_width=8", "model.affinity_width=8",
             "model.graph_widths=[8,8,8]", "model.frame_width=16", "optim.batch_size=6",
             "optim.milestones=[]", "train.num_epochs=2"]  # fmt: skip
    submitted = submit(train, dashboard, environment)
    told = submitted.stdout + submitted.stderr
    assert submitted.returncode == 0, told
    assert "epoch 2/2" in told
    assert "succeeded" in told
    report = json.loads((tmp_path / "runs" / "job" / "report.json").read_text())
    assert report["num_clips"] > 0
    made = json.loads((tmp_path / "runs" / "job" / "environment.json").read_text())
    assert (made["fewest_workers"], made["workers"]) == (1, 1)

    confused = subprocess.run(
        [*train, "--address", dashboard],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert confused.returncode == 1
    assert "the address of a dashboard" in confused.stderr
