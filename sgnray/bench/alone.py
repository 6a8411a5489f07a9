"""Processes that train by themselves, without Ray, side by side.

The first line of a process's stdin is a task as JSON. It answers "ready" once it has trained an
epoch, waits for the next line, and answers with the clips/s of each further epoch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgnray.config import Recipe, to_dict

_PROGRAM = "from sgnray.bench.alone import train_alone; train_alone()"


def measure_alone(
    recipe: Recipe, dataset_dir: Path, *, num_processes: int, num_threads: int
) -> list[list[float]]:
    """Return the clips/s of each epoch but the first, for processes that run at the same time."""
    task = {
        "recipe": to_dict(recipe),
        "dataset_dir": str(dataset_dir),
        "num_threads": num_threads,
    }
    with _processes(num_processes, num_threads) as processes:
        for process in processes:
            _tell(process, json.dumps(task))
        for process in processes:
            assert _hear(process) == "ready"
        for process in processes:
            _tell(process, "go")
        return [json.loads(_hear(process)) for process in processes]


def train_alone() -> None:
    """Be such a process."""
    import torch

    from sgnray.config import parse_recipe
    from sgnray.data.bank import PoseBank
    from sgnray.data.store import open_dataset
    from sgnray.evaluate.metrics import CLIPS_PER_S
    from sgnray.train.job import choose_parts, train_batches
    from sgnray.train.loop import train_epoch
    from sgnray.train.state import TrainState
    from sgnray.train.step import choose_steps
    from sgnray.world import World

    task = json.loads(sys.stdin.readline())
    torch.set_num_threads(task["num_threads"])
    recipe, dataset = parse_recipe(task["recipe"]), open_dataset(Path(task["dataset_dir"]))
    device = torch.device("cpu")
    bank, rows = PoseBank.of(dataset, device), choose_parts(recipe, dataset).train
    state = TrainState.fresh(recipe, dataset, device=device, world=World())
    steps = choose_steps(state, train_batches(recipe, bank, rows, world=World()))
    train_epoch(steps)
    _answer("ready")
    sys.stdin.readline()
    rates = [train_epoch(steps)[CLIPS_PER_S] for _ in range(recipe.train.num_epochs - 1)]
    _answer(json.dumps(rates))


@contextmanager
def _processes(count: int, num_threads: int) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}  # so Ray's workers have it
    processes = [
        subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
