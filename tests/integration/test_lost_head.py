"""The head of a cluster loses its GCS, without which Ray ends a driver after a while, in silence.

Each command ends before that with an error; on a new cluster, rerunning it resumes.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import psutil
import pytest

from ..processes import command_of
from .disturbed import (
    assert_undisturbed,
    end,
    num_epochs,
    print_seconds,
    train_command,
    tune_command,
    wait_for_end,
    wait_until,
)
from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WAIT_S = "30"  # instead of Ray's minute


@pytest.fixture(scope="module")
def host():
    with hosts(1) as (host,):
        host.start_head(num_cpus=2)
        yield host


@pytest.fixture
def start(host, tmp_path):
    """Start a command in `tmp_path` on the cluster; ends it afterwards."""
    started = []

    def run(words):
        with (tmp_path / "out.txt").open("ab") as out:
            settings = {"env": os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": WAIT_S}}
            words = [*words, "--address", host.ray_address]
            started.append(host.start(words, cwd=tmp_path, stdout=out, stderr=out, **settings))
        return started[-1]

    yield run
    for process in started:
        end(process)


def kill_gcs(host):
    (gcs,) = [process for process in processes(host) if name_of(process) == "gcs_server"]
    gcs.kill()


def processes(host):
    """The processes inside a host; those that end meanwhile are left out."""
    for pid in host.pids():
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def name_of(process):
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def is_scoring(host):
    """Whether a worker of a pool has a task."""
    return any("ray::_Worker.run" in command_of(pid) for pid in host.pids())


def lose_head(host, start, words, is_working, output):
    """Run a command that loses its head while it works; it ends with one error.

    The host has a new head afterwards, for the rest of the test and for other tests.
    """
    process = start(words)
    wait_until(is_working, process, output=output)
    try:
        kill_gcs(host)
        print_seconds("from the loss to the end", wait_for_end(process, 1, output=output))
    finally:
        host.kill_all()
        host.start_head(num_cpus=2)
    printed = output.read_text()
    assert "does not answer; waiting for it" in printed
    block = printed.partition("error: ")[2].splitlines()
    assert block[0] == "the Ray cluster was lost: its head node does not answer"
    assert [line[:9] for line in block[1:]] == ["  where  ", "  now    "], printed


def sgn(*words):
    return [sys.executable, "-m", "sgnray.cli", *map(str, words)]


def test_train(host, start, tiny_folder, tmp_path):
    output, run = tmp_path / "out.txt", tmp_path / "runs/run"
    words = train_command(tiny_folder, "--workers", "2", "train.num_epochs=100000")
    lose_head(host, start, words, lambda: num_epochs(run) >= 2, output)
    # Endless: the run can be rerun with the same number of epochs only, however fast it is.
    lost_at = num_epochs(run)
    again = start(words)
    wait_until(lambda: num_epochs(run) >= lost_at + 2, again, output=output)
    os.killpg(again.pid, signal.SIGINT)
    wait_for_end(again, 130, output=output)
    assert "resumes after epoch" in output.read_text()
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def test_eval(host, start, tiny_run, tiny_folder, tmp_path):
    output, report = tmp_path / "out.txt", tmp_path / "report"
    words = sgn("eval", tiny_run, "--data", tiny_folder, "--workers", 2, "--out", report)
    lose_head(host, start, [*words, "--views", "20000"], lambda: is_scoring(host), output)
    assert not report.exists()
    wait_for_end(start(words), 0, output=output)
    assert (report / "report.json").exists()


def test_predict(host, start, tiny_run, tiny_raw, tmp_path):
    output, out = tmp_path / "out.txt", tmp_path / "p.jsonl"
    options = ("--window", 12, "--stride", 1, "--views", 100, "--workers", 2, "--out", out)
    words = sgn("predict", tiny_raw, "--checkpoint", tiny_run, *options)
    state = tmp_path / "p.jsonl.partial/state"
    lose_head(host, start, words, state.exists, output)
    assert not out.exists()
    wait_for_end(start(words), 0, output=output)
    assert "continuing: " in output.read_text()
    assert out.exists()


def test_tune(host, start, tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    space = tmp_path / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 2e-2]}\n", encoding="utf-8")
    words = tune_command(tiny_folder, "--space", str(space), "--name", "search", "--epochs", "40")
    record = tmp_path / "runs/search/record.jsonl"

    def has_two_epochs():
        return record.exists() and record.read_text().count('"epoch"') >= 2

    lose_head(host, start, words, has_two_epochs, output)
    assert (tmp_path / "runs/search/trials.csv").read_text().count(",interrupted,") > 0
    wait_for_end(start(words), 0, output=output)
    assert (tmp_path / "runs/search/trials.csv").read_text().count(",finished,") == 2
