"""The S3 server that stores a run on two Ray workers is killed: for a while, and for good."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from pyarrow import fs

from .disturbed import (
    assert_undisturbed,
    end,
    num_epochs,
    print_seconds,
    start_train,
    train_command,
    wait_for_end,
    wait_until,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# `sgn` that gives up the last upload after five seconds instead of two minutes.
IMPATIENT = "import sgnray.storage.mirror as m; m._GIVE_UP_AFTER_S = 5.0; "
IMPATIENT += "from sgnray.cli.main import run; run()"


@pytest.fixture
def start(persistent_s3, tiny_folder, tmp_path, monkeypatch):
    """Start the same `sgn train`, whose run is in the bucket, several times; end it afterwards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    words = train_command(tiny_folder, "--workers", "2", "--runs", persistent_s3.uri_of("bucket"))
    started = []

    def run(num_epochs):
        more = f"train.num_epochs={num_epochs}"
        started.append(start_train(tmp_path, sys.executable, "-c", IMPATIENT, *words[3:], more))
        return started[-1]

    yield run
    for process in started:
        end(process)


@pytest.fixture
def bucket(persistent_s3):
    """The file system of the server, whose bucket is empty."""
    return persistent_s3.create_bucket()


def copy_of_run(folder, process):
    """Wait until the command has made its copy of the run."""
    found = []

    def look():
        found[:] = folder.glob("cache/runs/*/run/recipe.yaml")
        return found != []

    wait_until(look, process, output=folder / "out.txt")
    return found[0].parent


def interrupt(process, output):
    os.killpg(process.pid, signal.SIGINT)
    wait_for_end(process, 130, output=output)


def assert_uploaded(bucket, copy):
    """The bucket has the files of the copy, and no others."""
    infos = bucket.get_file_info(fs.FileSelector("bucket/run", recursive=True))
    there = {info.path.removeprefix("bucket/run/") for info in infos if info.is_file}
    here = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert there == here
    assert "metrics.jsonl" in here
    for name in here:
        with bucket.open_input_stream(f"bucket/run/{name}") as stream:
            assert stream.read() == (copy / name).read_bytes(), name


def test_a_server_that_is_gone_for_a_while(start, bucket, persistent_s3, tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    process = start(100000)  # endless: no machine finishes it before it notices the loss
    copy = copy_of_run(tmp_path, process)
    wait_until(lambda: num_epochs(copy) >= 2, process, output=output)
    persistent_s3.kill()
    warned = wait_until(lambda: "trying again" in output.read_text(), process, output=output)
    print_seconds("from a killed server to the warning", warned)
    lost_at = num_epochs(copy)
    wait_until(lambda: num_epochs(copy) >= lost_at + 10, process, output=output)
    persistent_s3.start()
    uploaded = "everything is uploaded now"
    wait_until(lambda: uploaded in output.read_text(), process, output=output)
    interrupt(process, output)
    assert_uploaded(bucket, copy)
    interrupted_at = num_epochs(copy)
    process = start(100000)
    wait_until(lambda: num_epochs(copy) >= interrupted_at + 2, process, output=output)
    interrupt(process, output)
    assert_uploaded(bucket, copy)
    assert_undisturbed(copy, tiny_folder, tmp_path, size=2)


def test_a_server_that_is_gone_for_good(start, bucket, persistent_s3, tmp_path):
    output = tmp_path / "out.txt"
    process = start(20)
    copy = copy_of_run(tmp_path, process)
    wait_until(lambda: num_epochs(copy) >= 2, process, output=output)
    persistent_s3.kill()
    wait_until(lambda: num_epochs(copy) == 20, process, output=output)
    failed = wait_for_end(process, 1, output=output)
    print_seconds("from the last epoch to the end of the command", failed)
    text = output.read_text()
    block = text.partition("error: ")[2].splitlines()
    assert len(block) == 3, text
    assert f"they are in {copy}; rerun the command" in block[2]
    assert "Traceback" not in text
    persistent_s3.start()
    wait_for_end(start(20), 0, output=output)
    assert "has finished all 20 epochs" in output.read_text()
    assert_uploaded(bucket, copy)
    assert (copy / "report.json").exists()
