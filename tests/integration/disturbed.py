"""Commands of runs that a test interrupts, and the weights of the same run uninterrupted.

As a script: disturbed.py RANK SIZE RUN EPOCH DATASET OUT trains the recipe of a run folder straight
through, in plain torch over gloo without Ray; rank 0 leaves its checkpoint of an epoch in OUT.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from torch import distributed as dist

from sgnray.checkpoints.run_folder import RunFolder

# Epochs of a few steps, long enough for a test to observe each of them.
SMALL = (
    "data.num_segments=8",
    "model.embedding_width=8",
    "model.affinity_width=8",
    "model.graph_widths=[8, 8, 8]",
    "model.frame_width=16",
    "optim.batch_size=4",
    "optim.milestones=[]",
)


def train_command(data: Path, *options: str) -> list[str]:
    """Return the words of `sgn train` with a small recipe; its folder is runs/run."""
    command = [sys.executable, "-m", "sgnray.cli", "train", "--case", "cv", "--name", "run"]
    return [*command, "--data", str(data), "--device", "cpu", *options, *SMALL]


def tune_command(data: Path, *options: str) -> list[str]:
    """Return the words of `sgn tune`, a grid of a small recipe, 12 epochs each."""
    command = [sys.executable, "-m", "sgnray.cli", "tune", "--case", "cv", "--search", "grid"]
    return [*command, "--data", str(data), *options, *SMALL]


def start_train(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command in its own process group; its output is appended to out.txt.

    On two cores, so that two workers of a local cluster have one thread each, on any machine.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            ["taskset", "-c", cores, *words],
            cwd=folder, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


def train_workers(pid: int) -> list[psutil.Process]:
    """List the Ray Train workers beneath a process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a process that is still there."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def num_epochs(run: Path) -> int:
    """Count the epochs that a run has recorded."""
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def wait_for_epoch(run: Path, epoch: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until a run has so many epochs; its process must live until then. Return the seconds."""
    return wait_until(lambda: num_epochs(run) >= epoch, process, output=run.parents[1] / "out.txt")


def wait_for_end(process: subprocess.Popen[bytes], code: int, *, output: Path) -> float:
    """Wait until a process ends with an exit code; return the seconds."""
    start = time.monotonic()
    found = process.wait(300)
    assert found == code, f"exit code {found}: {output.read_text()}"
    return time.monotonic() - start


def print_seconds(what: str, seconds: float) -> None:
    """Show how long something took: pytest -s."""
    print(f"\n{what}: {seconds:.1f} s")


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    *,
    output: Path,
    timeout_s: float = 300,
) -> float:
    """Wait until something holds, and return the seconds; a process must live until then."""
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < start + timeout_s, output.read_text()
        time.sleep(0.05)
    return time.monotonic() - start


def assert_undisturbed(run: Path, data: Path, scratch: Path, *, size: int) -> None:
    """Check that a run is bitwise the uninterrupted one so far, and has every epoch once."""
    disturbed = RunFolder(run).require_checkpoint()[1]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, disturbed.epoch + 1))
    path = _train_straight(run, disturbed.epoch, data, scratch, size)
    straight = torch.load(path, weights_only=True)
    assert straight["epoch"] == disturbed.epoch
    for name, weight in straight["weights"].items():
        assert torch.equal(disturbed.weights[name], weight), name


def _train_straight(run: Path, epoch: int, data: Path, scratch: Path, size: int) -> Path:
    out = scratch / "straight.pt"
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(size), run, str(epoch), data, out]
        )
        for rank in range(size)
    ]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0] * size
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return out


class _Reached(Exception):
    """The epoch of interest is done."""


def _main(rank: int, size: int, run: Path, epoch: int, data: Path, out: Path) -> None:
    from sgnray.checkpoints.checkpoint import save_checkpoint
    from sgnray.config import load_recipe
    from sgnray.distributed.world import World
    from sgnray.train.job import run_job

    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{out}.rendezvous", rank=rank, world_size=size,
            timeout=timedelta(seconds=300),
        )  # fmt: skip
    recipe = load_recipe(str(run / "recipe.yaml"))

    def on_epoch(state, result):
        if rank == 0 and result.epoch == epoch:
            save_checkpoint(out, state.checkpoint())
        if result.epoch == epoch:  # the recipe may be endless
            raise _Reached

    with suppress(_Reached):
        run_job(recipe, data, device=torch.device("cpu"), world=World.current(), on_epoch=on_epoch)
    gc.collect()  # DDP is in cycles, and would otherwise be freed while the interpreter exits
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    rank, size, run, epoch, data, out = sys.argv[1:]
    _main(int(rank), int(size), Path(run), int(epoch), Path(data), Path(out))
