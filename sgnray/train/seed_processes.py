"""The processes that train the seeds of a recipe, one for each, as many at once as have room."""

from __future__ import annotations

import _thread
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch

from sgnray.distributed.cluster import sighup_blocked
from sgnray.distributed.cores import num_cores
from sgnray.errors import SgnError
from sgnray.storage.mirror import address_of
from sgnray.train import checks, run
from sgnray.train.run import RunResult

log = logging.getLogger(__name__)

_JOIN_S = 30.0

Train = partial[RunResult]  # `train_run` with all arguments except `on_epoch`


def train_in_processes(
    waiting: dict[int, Train],
    slots: Sequence[str | None],
    *,
    on_epoch: Callable[[int, int], None],
    on_finish: Callable[[int, dict[str, Any], str], None],
) -> dict[int, str]:
    """Train the waiting seeds, one in each slot: the GPU it uses, or None.

    `on_epoch` is called with a seed and its last epoch, `on_finish` with a seed, its report and
    its run. Returns the reason of each seed that failed.
    """
    # Depends on all seeds, not on those that are left: after a restart, the same number of threads
    # gives the same bits.
    num_threads = max(1, min(torch.get_num_threads(), num_cores() // len(slots)))
    free = list(slots)
    running: dict[Connection, tuple[int, BaseProcess, str | None]] = {}
    finished: set[int] = set()
    failed: dict[int, str] = {}
    logged: set[str] = set()

    def fail(seed: int, reason: str) -> None:
        failed[seed] = reason
        log.info("seed %d: %s", seed, reason)

    with _ended(running):
        while waiting or running:
            while waiting and free:
                seed = next(iter(waiting))
                gpu = free.pop(0)
                connection, process = _start(seed, waiting.pop(seed), gpu, num_threads)
                running[connection] = (seed, process, gpu)
            for connection in cast("list[Connection]", wait(list(running))):
                seed, process, gpu = running[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    _end(process, _JOIN_S)
                    del running[connection]
                    free.append(gpu)
                    if seed not in finished and seed not in failed:
                        fail(seed, f"its process ended with exit code {process.exitcode}")
                    continue
                match kind:
                    case "epoch":
                        on_epoch(seed, content)
                    case "finished":
                        finished.add(seed)
                        on_finish(seed, *content)
                    case "log" if content[1] not in logged:  # all seeds log the same warnings
                        logged.add(content[1])
                        log.log(*content)
                    case "failed":
                        fail(seed, content)
    return failed


@contextmanager
def _ended(running: dict[Connection, tuple[int, BaseProcess, str | None]]) -> Iterator[None]:
    """End all processes at exit: a closed connection interrupts the seed at its other end."""
    try:
        yield
    finally:
        for connection in running:
            connection.close()
        deadline = time.monotonic() + _JOIN_S
        for _, process, _ in running.values():
            _end(process, max(0.0, deadline - time.monotonic()))


def _end(process: BaseProcess, wait_s: float) -> None:
    process.join(wait_s)
    if process.is_alive():
        process.kill()
        process.join()


def _start(
    seed: int, train: Train, gpu: str | None, num_threads: int
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_train_seed, args=(theirs, seed, train, gpu, num_threads))
    with _signals_ignored():
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Let a process that starts now ignore what a terminal sends to all processes of a command.

    Only its closed connection ends it.
    """
    with sighup_blocked():
        if threading.current_thread() is not threading.main_thread():
            yield  # handlers can only be set in the main thread
            return
        # Not blocked: multiprocessing's resource tracker, which may start first, would unblock it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _train_seed(
    connection: Connection, seed: int, train: Train, gpu: str | None, num_threads: int
) -> None:
    """Train one seed in its own process, and send its progress and its result."""
    # Ray prints to stdout, which is for the result of the command.
    with suppress(KeyboardInterrupt, BrokenPipeError), redirect_stdout(sys.stderr):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_interrupt_at_end_of, args=(connection,), daemon=True).start()
        logging.getLogger("sgnray").addHandler(_Sender(connection, seed))
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        torch.set_num_threads(num_threads)
        try:
            result = train(on_epoch=lambda epoch: connection.send(("epoch", epoch.epoch)))
        except SgnError as error:
            connection.send(("failed", str(error)))
        except Exception as error:  # the traceback is in the run's log.txt
            connection.send(("failed", f"{type(error).__name__}: {error}"))
        else:
            content = (result.report.to_dict(), address_of(result.folder))
            connection.send(("finished", content))


def _interrupt_at_end_of(connection: Connection) -> None:
    """Interrupt this process, as Ctrl-C does, once its parent process is gone."""
    with suppress(EOFError, OSError):
        connection.recv()
    _thread.interrupt_main(signal.SIGTERM)


class _Sender(logging.Handler):
    """Sends the records that the parent process should show; each run's log.txt has the rest."""

    def __init__(self, connection: Connection, seed: int) -> None:
        super().__init__(logging.INFO)
        self._connection = connection
        self._seed = seed

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno < logging.WARNING:
            if record.name != run.__name__:  # which logs a run's folder, and if it resumes
                return
            text = f"seed {self._seed}: {text}"
        elif record.name == checks.__name__:  # the parent process made the same checks
            return
        with suppress(OSError):
            self._connection.send(("log", (record.levelno, text)))
