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

from .disturbed import (
    end,
    num_epochs,
    start_train,
    train_command,
    tune_command,
    wait_for_epoch,
)

pytestmark = pytest.mark.ray

# In a mount namespace of its own, a node finds an empty file system where the dataset lies.
HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'
FETCH = """
import ray, sys
from pathlib import Path
from sgnray.data.fetch import SharedDataset
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


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a node takes root")
def test_a_node_with_a_disk_of_its_own(tiny_folder, tmp_path, start_node, monkeypatch):
    """Train, resume, tune and eval: the second node sees neither the dataset nor the runs."""
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token of an earlier Ray on this machine
    disk = tmp_path / "disk"
    data, run = disk / "data", disk / "runs" / "run"
    shutil.copytree(tiny_folder, data / "synth")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_node("--head", "--port", str(port), "--include-dashboard=false")
    wait_until_open(port)
    start_node("--address", f"127.0.0.1:{port}", hide=disk)

    # Two workers of one CPU each, and so both nodes.
    both = ("--workers", "2", "--address", f"127.0.0.1:{port}")
    command = train_command(data, *both, "train.num_epochs=30")
    process = start_train(disk, *command)
    try:
        wait_for_epoch(run, 3, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(200) == 130
    finally:
        end(process)
    assert num_epochs(run) < 30
    output = finish(command, disk)
    assert "resumes after epoch" in output.stderr
    assert num_epochs(run) == 30
    (copy,) = (tmp_path / "cache" / "datasets").glob("*/clips.arrow")
    assert copy.read_bytes() == (tiny_folder / "clips.arrow").read_bytes()

    sgn = [sys.executable, "-m", "sgnray.cli"]
    output = finish([*sgn, "eval", str(run), *both, "--json"], disk)
    trained = json.loads((run / "report.json").read_text())
    assert json.loads(output.stdout)["top1"] == trained["top1"]

    space = disk / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 2e-2]}\n")
    split = ("--workers-per-trial", "2", "--epochs", "2", "--space", str(space))
    finish([*tune_command(data, *both[2:], *split)], disk)
    (table,) = (disk / "runs").glob("*/trials.csv")
    assert table.read_text().count(",finished,") == 2


def finish(command, folder):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def wait_until_open(port):
    for _ in range(300):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise AssertionError("the head node did not start")
