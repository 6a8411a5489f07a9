"""Training nodes that do not share a disk with the driver: the dataset comes to them, once."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

# In a mount namespace of its own, a node finds an empty file system where the dataset lies.
HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'
FETCH = """
import ray, sys
from pathlib import Path
from sgnray.data.shared import SharedDataset
ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
dataset = SharedDataset.of(Path(sys.argv[1]))
unseen = SharedDataset(Path("/absent"), dataset.checksum, dataset.file_server)
here = ray.remote(lambda shared: str(shared.local_dir()))
print(ray.get(here.remote(dataset)))
print(*set(ray.get([here.remote(unseen) for _ in range(3)])))
"""


def test_what_a_machine_does_not_see_is_fetched_once(tiny_folder, tmp_path):
    environment = os.environ | {"SGNRAY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(tiny_folder)],
        env=environment, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    seen, fetched = done.stdout.splitlines()[-2:]
    assert Path(seen) == tiny_folder.resolve()
    assert Path(fetched).is_relative_to(tmp_path / "cache")
    assert (Path(fetched) / "clips.arrow").read_bytes() == (
        tiny_folder / "clips.arrow"
    ).read_bytes()


@pytest.fixture
def start_node():
    """Start a node of a Ray cluster, by `ray start --block`; ends it afterwards."""
    started, folders = [], []

    def start(*options, hide=None):
        folder = tempfile.mkdtemp(prefix="sgn-ray-")  # short: socket paths have a limit
        folders.append(folder)
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus", "1", "--block",
               "--object-store-memory", "100000000", "--disable-usage-stats",
               "--temp-dir", folder, *options]  # fmt: skip
        hidden = ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(hide)] if hide else []
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([*hidden, *ray], start_new_session=True, **quiet))

    yield start
    for process in reversed(started):
        process.terminate()
    for process in reversed(started):
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a node takes root")
def test_a_node_that_cannot_see_the_dataset_trains_with_it(
    tiny_folder, tmp_path, start_node, monkeypatch
):
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token of an earlier Ray on this machine
    data = tmp_path / "data"
    shutil.copytree(tiny_folder, data / "synth")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_node("--head", "--port", str(port), "--include-dashboard=false")
    wait_until_open(port)
    start_node("--address", f"127.0.0.1:{port}", hide=data)
    trained = train_when_two_cpus_are_there(port, data, tmp_path / "runs")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["report"]["num_clips"] > 0
    (copy,) = (tmp_path / "cache" / "datasets").glob("*/clips.arrow")
    assert copy.read_bytes() == (tiny_folder / "clips.arrow").read_bytes()


def train_when_two_cpus_are_there(port, data, runs):
    """Two workers of one CPU each need both nodes."""
    command = [sys.executable, "-m", "sgnray.cli", "train", "--case", "cv", "--workers", "2",
               "--address", f"127.0.0.1:{port}", "--data", str(data), "--runs", str(runs),
               "--json", "--device", "cpu", "train.num_epochs=1",
               "optim.milestones=[]"]  # fmt: skip
    for _ in range(20):
        trained = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if "the cluster has" not in trained.stderr:
            break
        time.sleep(1)
    return trained


def wait_until_open(port):
    for _ in range(300):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise AssertionError("the head node did not start")
