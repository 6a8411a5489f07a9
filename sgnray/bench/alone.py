"""Processes that train by themselves, without Ray, side by side.

The first line of a process's stdin is a task as JSON. It answers "ready" once it has trained an
epoch, waits for the next line, and answers with the clips/s of each further epoch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sgnray.config import Recipe, to_dict
from sgnray.errors import SgnError

_PROGRAM = "from sgnray.bench.alone import train_alone; train_alone()"
# It has closed its output, so that its end is near.
_DEATH_TIMEOUT_S = 10.0


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
            process.tell(json.dumps(task))
        for process in processes:
            assert process.hear() == "ready"
        for process in processes:
            process.tell("go")
        return [json.loads(process.hear()) for process in processes]


def train_alone() -> None:
    """Be such a process."""
    import torch

    from sgnray.config import parse_recipe
    from sgnray.data.pose_bank import PoseBank
    from sgnray.data.store import open_dataset
    from sgnray.distributed.world import World
    from sgnray.metric_keys import CLIPS_PER_S
    from sgnray.train.job import choose_parts, train_batches
    from sgnray.train.loop import train_epoch
    from sgnray.train.state import TrainState
    from sgnray.train.step import choose_steps

    task = json.loads(sys.stdin.readline())
    torch.set_num_threads(task["num_threads"])
    recipe, dataset = parse_recipe(task["recipe"]), open_dataset(Path(task["dataset_dir"]))
    device = torch.device("cpu")
    bank, rows = PoseBank.of(dataset, device), choose_parts(recipe, dataset).train
    state = TrainState.initial(recipe, dataset, device=device, world=World())
    steps = choose_steps(state, train_batches(recipe, bank, rows, world=World()))
    train_epoch(steps)
    _answer("ready")
    if not sys.stdin.readline():  # whoever asked is gone
        return
    rates = [train_epoch(steps)[CLIPS_PER_S] for _ in range(recipe.train.num_epochs - 1)]
    _answer(json.dumps(rates))


class _Process:
    """One such process, from outside."""

    def __init__(self, num_threads: int) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(num_threads),
        }  # so Ray's workers have it
        # A file and no pipe: whoever writes much into one waits for a reader.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def tell(self, line: str) -> None:
        """Send a line; SgnError where the process has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def hear(self) -> str:
        """Wait for a line; SgnError where the process dies before it is whole."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise self._death()
        return line.strip()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _death(self) -> SgnError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_TIMEOUT_S)
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        code = self._process.returncode
        cause = f"killed by signal {-code}" if code is not None and code < 0 else f"exit {code}"
        return SgnError(
            f"a process that measures died: {lines[-1].strip() if lines else cause}",
            where=f"process {self._process.pid}, which trains beside others without Ray",
            now="if memory is short, measure fewer --workers or a smaller optim.batch_size",
        )


@contextmanager
def _processes(count: int, num_threads: int) -> Iterator[list[_Process]]:
    with ExitStack() as ending:
        processes = []
        for _ in range(count):
            processes.append(_Process(num_threads))
            ending.callback(processes[-1].end)
        yield processes


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
