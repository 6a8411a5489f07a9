"""Training across two hosts: one is cut off and comes back, and only time is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

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

# A lost node is noticed in seconds; Ray's defaults take up to a minute. See cluster.md.
NOTICED_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}

# Prints a line for each job of an endless pool; its arguments are an address, a number of workers
# and the arguments of a WorkerRequest.
POOL = """
import itertools, json, logging, sys, time
from sgnray.distributed.pool import run_on_actors
from sgnray.distributed.resources import WorkerRequest
logging.basicConfig(format="%(message)s")
def work(job, device):
    time.sleep(0.1)
    return job
address, workers, request = sys.argv[1], int(sys.argv[2]), WorkerRequest(**json.loads(sys.argv[3]))
options = {"workers": workers, "address": address, "now": "run it again", "request": request}
for job in run_on_actors(work, itertools.count(), **options):
    print("job", job, flush=True)
"""


@pytest.fixture(scope="module")
def network():
    """A head and a second host, each one CPU."""
    with hosts(2) as (head, other):
        start_cluster(head, other)
        yield head, other


def start_cluster(head, other):
    """A label tells the hosts apart."""
    head.start_head("--labels", "zone=head", **NOTICED_SOON)
    join(head, other)


def join(head, other):
    other.join(head, "--labels", "zone=other")


@pytest.fixture
def start(network, tiny_folder, tmp_path):
    """Start `sgn train` on the head; ends it afterwards."""
    head, _ = network
    started = []

    def run(*options):
        command = train_command(tiny_folder, "--address", head.ray_address, *options)
        with (tmp_path / "out.txt").open("ab") as out:
            started.append(head.start(command, cwd=tmp_path, stdout=out, stderr=out))
        return started[-1]

    yield run
    for process in started:
        end(process)


def bring_back(head, other):
    """Do what an administrator does: plug in the cable and restart Ray."""
    other.kill_all()
    other.plug_cable()
    join(head, other)


def preempt(head, host, name):
    """Do what the provider of a spot machine does: give notice, and take it after a moment."""
    notice = ["ray", "drain-node", "--address", head.ray_address, "--node-id", name]
    notice += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    assert head.start([*notice, "--deadline-remaining-seconds", "2"]).wait(300) == 0
    time.sleep(3)  # Ray calls the end of a node a preemption if it comes after the notice's time
    host.kill_all()


def node_id(head, host):
    """The name by which Ray knows a host."""
    script = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(*[node"
    script += "['NodeID'] for node in ray.nodes() if node['Alive'] and node['NodeManagerAddress']"
    script += " == sys.argv[2]])"
    command = [sys.executable, "-c", script, head.ray_address, host.address]
    found, _ = head.start(command, stdout=subprocess.PIPE).communicate(timeout=100)
    return found.decode().strip()


def num_workers(host):
    return sum("RayTrainWorker" in command_of(pid) for pid in host.pids())


def num_trials(host):
    return sum("ImplicitFunc" in command_of(pid) for pid in host.pids())


def test_the_hosts_of_a_killed_driver_are_free_for_the_same_command(start, tiny_folder, tmp_path):
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    options = ("--workers", "2", "train.num_epochs=30")
    process = start(*options)
    wait_until(lambda: num_epochs(run) >= 3, process, output=output)
    process.kill()
    process.wait()
    assert num_epochs(run) < 30
    process = start(*options)
    resumed = wait_until(lambda: num_epochs(run) >= 5, process, output=output)
    print_seconds("from a killed driver to the second epoch of the same command", resumed)
    wait_for_end(process, 0, output=output)
    assert "resumes after epoch" in output.read_text()
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def test_a_fixed_run_waits_for_a_host_that_is_cut_off(network, start, tiny_folder, tmp_path):
    head, other = network
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start("--workers", "2", "--max-failures", "3", "train.num_epochs=30")
    wait_until(lambda: num_epochs(run) >= 3, process, output=output)
    assert (num_workers(head), num_workers(other)) == (1, 1)
    other.pull_cable()
    try:
        # Noticed: the worker that waited for the other host in an all-reduce is gone.
        noticed = wait_until(lambda: num_workers(head) == 0, process, output=output)
        print_seconds("a host is cut off; noticed after", noticed)
        lost_at = num_epochs(run)
        assert lost_at < 30
    finally:
        bring_back(head, other)
    resumed = wait_until(lambda: num_epochs(run) > lost_at, process, output=output)
    print_seconds("the host is back; next epoch after", resumed)
    wait_for_end(process, 0, output=output)
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def test_a_host_that_is_preempted_counts_as_lost(network, start, tiny_folder, tmp_path):
    """Ray Train by itself would start again where this command began."""
    head, other = network
    name = node_id(head, other)
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    options = ("--workers", "1", "--label", "zone=other", "--max-failures", "3")
    process = start(*options, "train.num_epochs=600")
    wait_until(lambda: num_epochs(run) >= 20, process, output=output)
    try:
        preempt(head, other, name)
    finally:
        bring_back(head, other)
    wait_for_end(process, 0, output=output)
    log = (run / "log.txt").read_text()
    assert log.count("a worker failed") == 1
    assert log.count("epoch 1 of 600") == 1
    assert_undisturbed(run, tiny_folder, tmp_path, size=1)


def test_an_elastic_run_continues_with_fewer_workers_and_grows_again(network, start, tmp_path):
    head, other = network
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start("--workers", "1:2", "train.num_epochs=100000")
    wait_until(lambda: num_epochs(run) >= 3, process, output=output)
    assert (num_workers(head), num_workers(other)) == (1, 1)
    other.kill_all()
    try:
        noticed = wait_until(lambda: num_workers(head) == 0, process, output=output)
        lost_at = num_epochs(run)
        alone = wait_until(lambda: num_epochs(run) > lost_at, process, output=output)
        print_seconds("a node of an elastic run is killed; next epoch after", noticed + alone)
        assert (num_workers(head), num_workers(other)) == (1, 0)
        num_failures = output.read_text().count("a worker failed")
    finally:
        join(head, other)
    joined = wait_until(lambda: num_workers(other) == 1, process, output=output)
    grown_at = num_epochs(run)
    grown = wait_until(lambda: num_epochs(run) > grown_at + 1, process, output=output)
    print_seconds("the node is back; second epoch with it after", joined + grown)
    # It stopped after an epoch to grow: none was lost.
    assert output.read_text().count("a worker failed") == num_failures
    for _ in range(2):  # twice in a row, as impatient users press it
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert process.wait(200) == 130
    assert "interrupted; rerun the same command" in output.read_text()
    assert "Traceback" not in output.read_text()


def search(network, data, folder, *options, until):
    """Run a grid of four trials on the head; returns the names of the hosts that have had one.

    `until` is called with them, and must become true while the search runs.
    """
    head, output, used = network[0], folder / "out.txt", set()
    space = folder / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 2e-2, 3e-2, 4e-2]}\n")
    command = tune_command(data, "--address", head.ray_address, "--space", str(space), *options)

    def look():
        used.update(host.name for host in network if num_trials(host))
        return until(used)

    with output.open("ab") as out:
        searching = head.start(command, cwd=folder, stdout=out, stderr=out)
    try:
        wait_until(look, searching, output=output)
        while searching.poll() is None:
            look()
            time.sleep(0.05)
        assert searching.wait() == 0, output.read_text()
    finally:
        end(searching)
    (table,) = folder.glob("runs/*/trials.csv")
    assert table.read_text().count(",finished,") == 4
    return used


def test_a_search_runs_its_trials_on_both_hosts(network, tiny_folder, tmp_path):
    search(network, tiny_folder, tmp_path, "--epochs", "50", until=lambda used: len(used) == 2)


@pytest.mark.parametrize("index", [0, 1], ids=["head", "other"])
def test_a_worker_goes_to_the_host_with_its_label(network, start, tmp_path, index):
    output, label = tmp_path / "out.txt", f"zone={('head', 'other')[index]}"
    process = start("--workers", "1", "--label", label, "train.num_epochs=100000")
    wait_until(lambda: num_epochs(tmp_path / "runs" / "run") >= 1, process, output=output)
    assert [num_workers(host) for host in network] == [index == 0, index == 1]
    process.send_signal(signal.SIGINT)
    wait_for_end(process, 130, output=output)


def test_waiting_for_a_label_that_no_host_has_ends(start, tmp_path):
    process = start("--workers", "1", "--label", "zone=absent", "--wait", "2s")
    wait_for_end(process, 1, output=tmp_path / "out.txt")
    block = (tmp_path / "out.txt").read_text().partition("error: ")[2]
    assert block.startswith("waited 2 s for 1 worker with 1 CPU, zone=absent\n")


def test_the_trials_of_a_search_go_to_the_host_with_their_label(network, tiny_folder, tmp_path):
    options = ("--label", "zone=other", "--epochs", "3")
    used = search(network, tiny_folder, tmp_path, *options, until=len)
    assert used == {network[1].name}


@pytest.fixture
def start_pool(network, tmp_path):
    """Start POOL on the head and wait until the other host works, too; ends it afterwards."""
    head, other = network
    output, started = tmp_path / "pool.txt", []

    def run(workers=2, **request):
        command = [sys.executable, "-c", POOL, head.ray_address, str(workers), json.dumps(request)]
        with output.open("ab") as out:
            started.append(head.start(command, cwd=tmp_path, stdout=out, stderr=out))
        wait_until(lambda: num_jobs(output) >= 10, started[-1], output=output)
        assert num_pool_workers(other) == 1
        return started[-1], output

    yield run
    for process in started:
        end(process)


def num_jobs(output):
    return output.read_text().count("job ")


def num_pool_workers(host):
    return sum("ray::_Worker" in command_of(pid) for pid in host.pids())


def test_a_pool_waits_for_a_host_that_is_lost(network, start_pool):
    head, other = network
    process, output = start_pool()
    other.kill_all()
    waiting = "waiting for 2 workers with 1 CPU each; the cluster has 1 CPU"
    try:
        wait_until(lambda: waiting in output.read_text(), process, output=output)
    finally:
        join(head, other)
    lost_at = num_jobs(output)
    wait_until(lambda: num_jobs(output) > lost_at + 20, process, output=output)
    assert output.read_text().count("waiting for") == 1
    jobs = [line.split()[1] for line in output.read_text().splitlines() if line.startswith("job")]
    assert jobs == [str(number) for number in range(len(jobs))]


def test_a_pool_goes_to_the_host_with_its_label(network, start_pool):
    start_pool(workers=1, labels={"zone": "other"})
    assert num_pool_workers(network[0]) == 0


def test_a_pool_stops_waiting_for_a_lost_host(network, start_pool):
    head, other = network
    process, output = start_pool(wait_s=1.0)
    other.kill_all()
    try:
        assert process.wait(200) == 1
    finally:
        join(head, other)
    assert "ClusterError: waited 1 s for 2 workers with 1 CPU each" in output.read_text()


def test_ctrl_c_ends_a_run_that_waits_for_a_host(network, start, tmp_path):
    head, other = network
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start("--workers", "2", "--max-failures", "3", "train.num_epochs=100000")
    try:
        wait_until(lambda: num_epochs(run) >= 1, process, output=output)
        other.kill_all()
        wait_until(lambda: num_workers(head) == 0, process, output=output)
        process.send_signal(signal.SIGINT)
        ended = wait_for_end(process, 130, output=output)
        print_seconds("Ctrl-C while the run waits for a host; the command ends after", ended)
    finally:
        join(head, other)


def test_a_run_whose_head_dies_resumes_on_a_new_cluster(network, start, tiny_folder, tmp_path):
    """Runs last: it ends the cluster. On a new one, rerunning the same command resumes."""
    head, other = network
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start("--workers", "2", "train.num_epochs=30")
    wait_until(lambda: num_epochs(run) >= 3, process, output=output)
    for pid in head.pids():
        if "sgnray.cli" not in command_of(pid):
            os.kill(pid, signal.SIGKILL)
    print_seconds(
        "the head is killed; the command ends after", wait_for_end(process, 1, output=output)
    )
    block = output.read_text().partition("error: ")[2]
    assert block.count("\n") == 3, output.read_text()
    assert "rerun the same command" in block
    assert "Traceback" not in output.read_text()
    again = ["--workers", "2", "train.num_epochs=30"]
    _restart(head, other)
    assert start(*again).wait(300) == 0, output.read_text()
    assert "resumes after epoch" in output.read_text()
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def _restart(head, other):
    for host in (head, other):
        host.kill_all()
    start_cluster(head, other)
