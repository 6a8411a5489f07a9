"""How many seeds run at once, and on what."""

import signal
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sgnray.checkpoints.run_folder import claim_run
from sgnray.distributed.resources import Resources, WorkerRequest, Workers
from sgnray.errors import SgnError
from sgnray.train import seed_processes, seeds

BUSY = Resources(64, 8, is_local=False, node_cpus=(64,), free_cpus=40, free_gpus=5)
WITHOUT_GPUS = Resources(64, 0, is_local=False, node_cpus=(64,), free_cpus=40)
FULL = Resources(8, 4, is_local=False, node_cpus=(8,))


@pytest.mark.parametrize(
    ("resources", "num_workers", "device", "num_slots", "num_cpus"),
    [
        (BUSY, 1, "auto", 5, None),
        (BUSY, 2, "auto", 2, None),
        (BUSY, 1, "cpu", 10, 4),
        (WITHOUT_GPUS, 4, "cpu", 10, 1),
        (WITHOUT_GPUS, 8, "cpu", 5, 1),
        (FULL, 2, "auto", 1, None),  # waits
        (FULL, 2, "cpu", 1, 1),
    ],
)
def test_seeds_at_once_have_what_the_cluster_has_free(
    monkeypatch, caplog, resources, num_workers, device, num_slots, num_cpus
):
    @contextmanager
    def connected(address, num_workers):
        yield resources

    monkeypatch.setattr(seeds, "connected", connected)
    slots, chosen, request = seeds._slots(
        10, Workers.of(num_workers), "head:6379", device, WorkerRequest(wait_s=60)
    )
    assert (len(slots), request.num_cpus) == (num_slots, num_cpus)
    assert chosen == ("cpu" if device == "cpu" else "cuda")
    # Not where one CPU each is what many seeds leave for each other.
    assert ("each worker uses 1 thread" in caplog.text) is (resources is FULL and device == "cpu")


@pytest.mark.parametrize(
    ("free_gpus", "share", "num_slots"),
    [(2, 0.25, 8), (0.75, 0.25, 3), (1, 0.1, 10), (0.75, 1, 1), (0.75, None, 1)],
)
def test_seeds_share_the_free_gpus(monkeypatch, free_gpus, share, num_slots):
    cluster = Resources(64, 2, is_local=False, free_cpus=64, free_gpus=free_gpus)
    monkeypatch.setattr(seeds, "connected", lambda address, num_workers: nullcontext(cluster))
    request = WorkerRequest(num_gpus=share, wait_s=60)
    slots, *_ = seeds._slots(10, Workers.of(1), "head:6379", "auto", request)
    assert len(slots) == num_slots


@pytest.mark.parametrize(
    ("resources", "num_slots", "num_cpus"),
    [(FULL, 5, 1), (replace(BUSY, free_cpus=4), 6, 1), (replace(FULL, is_local=True), 1, 4)],
)
def test_a_few_seeds_more_ask_for_room_that_a_cluster_lacks(
    monkeypatch, resources, num_slots, num_cpus
):
    """Without a limit for their wait; their share is that of the seeds that have room now."""
    monkeypatch.setattr(seeds, "connected", lambda address, num_workers: nullcontext(resources))
    slots, _, request = seeds._slots(10, Workers.of(2), "head:6379", "cpu", None)
    assert (len(slots), request.num_cpus) == (num_slots, num_cpus)


def test_seeds_that_each_start_a_ray_cannot_share_a_gpu(monkeypatch, caplog):
    monkeypatch.setattr(seeds, "is_at_hand", lambda address: False)
    slots, *_ = seeds._slots(4, Workers.of(1), None, "auto", WorkerRequest(num_gpus=0.25))
    assert len(slots) == 1
    assert "seeds can share a GPU only on a running Ray cluster" in caplog.text


@pytest.mark.parametrize("name", [None, "mine"])
def test_seeds_keep_the_precision_that_they_have_begun_in(
    tiny_recipe, tiny_dataset, tmp_path, name
):
    recipe = tiny_recipe.replacing({"train.precision": "auto"})
    names = {seed: name and f"{name}-seed{seed}" for seed in (0, 1, 2)}
    found = []
    for seed, precision in ((0, "bf16"), (1, "float32"), (2, "float32")):
        found.append(seeds._known_precision(tmp_path, names, recipe))
        begun = recipe.replacing({"train.seed": seed, "train.precision": precision})
        with claim_run(tmp_path, names[seed], begun, tiny_dataset):
            pass
    found.append(seeds._known_precision(tmp_path, names, recipe))
    assert found == [None, "bf16", "bf16", "float32"]  # that of most runs


def test_a_terminal_that_is_closed_while_a_seed_starts_ends_the_command():
    received = []
    before = signal.signal(signal.SIGHUP, lambda number, _: received.append(number))
    try:
        with seed_processes._signals_ignored():
            signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
            assert not received  # the new process, which inherits this mask, never gets it
        assert received == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def print_and_fail(on_epoch):
    print("as Ray prints that a worker died")
    raise SgnError("no", where="here", now="wait")


def test_what_a_seed_prints_is_not_part_of_the_result(capfd, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # the new process imports this module
    connection, process = seed_processes._start(0, partial(print_and_fail), None, 1)
    assert connection.recv()[0] == "failed"
    process.join()
    printed = capfd.readouterr()
    assert (printed.out, "as Ray prints" in printed.err) == ("", True)
