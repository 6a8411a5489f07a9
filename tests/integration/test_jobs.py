"""`ray job submit -- sgn train` or tune: a cluster starts it, without a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from ..processes import free_port
from .disturbed import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = str(Path(sys.executable).with_name("ray"))
SGN = str(Path(sys.executable).with_name("sgn"))


@pytest.fixture
def cluster(tmp_path):
    """(dashboard, metrics, environment) of a head that requires a token and accepts jobs.

    An agent starts jobs; it accepts none if another Ray on this machine has its port.
    """
    folder = tempfile.mkdtemp(prefix="sgn-ray-")  # short: socket paths have a limit
    port, dashboard, agent, metrics = (free_port() for _ in range(4))
    token = tmp_path / "token"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment |= {"RAY_metrics_report_interval_ms": "500"}
    token.write_text(secrets.token_hex(32))
    command = [RAY, "start", "--head", "--port", str(port), "--num-cpus", "2", "--block",
               "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
               "--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics),
               "--object-store-memory", "100000000", "--disable-usage-stats",
               "--temp-dir", folder]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(command, env=environment, **quiet)
    try:
        wait_for_dashboard(dashboard, head)
        yield f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", environment
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            for process in [*psutil.Process(head.pid).children(recursive=True), head]:
                process.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_dashboard(port, head):
    deadline = time.monotonic() + 300
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert head.poll() is None, "the head has ended"
        assert time.monotonic() < deadline, "the dashboard does not answer"
        time.sleep(0.1)


def submit(command, dashboard, metrics, environment):
    """Return the exit code, the output, and the gauges that Prometheus could read meanwhile.

    The dashboard answers before the agent that starts jobs does.
    """
    command = [RAY, "job", "submit", "--address", dashboard, "--", *command]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    gauges: dict[str, str] = {}
    for _ in range(20):
        with subprocess.Popen(command, env=environment, **both) as job:
            while job.poll() is None:
                gauges |= read_gauges(metrics)
                time.sleep(0.2)
            output = job.stdout.read()
        if "No available agent" not in output:
            break
        time.sleep(1)
    return job.returncode, output, gauges


def read_gauges(metrics):
    """Read the gauges of sgnray and of Ray Train by name, each with its labels and value."""
    with contextlib.suppress(OSError), urllib.request.urlopen(metrics, timeout=10) as page:
        lines = page.read().decode().splitlines()
        ours = [line for line in lines if line.startswith(("ray_sgn_", "ray_train_"))]
        return dict(line.split("{", 1) for line in ours)
    return {}


def train_names(gauges):
    """Return how Ray Train names its runs."""
    found = [re.search('ray_train_run_name="([^"]*)"', labels) for labels in gauges.values()]
    return {name[1] for name in found if name}


def test_a_job_trains_on_a_cluster_that_asks_for_a_token(cluster, tiny_folder, tmp_path):
    dashboard, metrics, environment = cluster
    train = [SGN, "train", "--case", "cv", "--data", str(tiny_folder), "--workers", "1",
             "--runs", str(tmp_path / "runs"), "--name", "job", "--device", "cpu", *SMALL,
             "train.num_epochs=60"]  # fmt: skip
    code, output, gauges = submit(train, dashboard, metrics, environment)
    assert code == 0, output
    assert "epoch 60/60" in output
    assert "succeeded" in output
    for name in ("epoch", "train_loss", "train_top1", "speed_clips_per_s", "time_wait_s"):
        assert 'run="job"' in gauges[f"ray_sgn_{name}"]
        assert float(gauges[f"ray_sgn_{name}"].split()[-1]) > 0
    assert train_names(gauges) == {"job"}
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


def test_a_search_names_its_trials_on_the_cluster(cluster, tiny_folder, tmp_path):
    dashboard, metrics, environment = cluster
    space = tmp_path / "space.yaml"
    space.write_text("rows: [{}]\n")
    tune = [SGN, "tune", "--case", "cv", "--data", str(tiny_folder), "--space", str(space),
            "--runs", str(tmp_path / "runs"), "--name", "mine", "--workers-per-trial", "2",
            "--epochs", "60", *SMALL, "train.num_epochs=60"]  # fmt: skip
    code, output, gauges = submit(tune, dashboard, metrics, environment)
    assert code == 0, output
    for name in ("epoch", "train_loss", "val_loss", "val_top1", "speed_clips_per_s"):
        assert 'run="mine-trial-1"' in gauges[f"ray_sgn_{name}"]
    (name,) = train_names(gauges)
    assert name.startswith("mine-trial-1-")
