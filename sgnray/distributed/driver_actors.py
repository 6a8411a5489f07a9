"""Messages, files and states between a driver and its workers, by actors on the driver's machine.

The processes of these actors do not load torch, which takes longer than all their work. So this
module does not import it, and the actors handle messages only as pickled bytes.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgnray.storage.atomic import output_errors

_ANSWER_TIMEOUT_S = 60.0
_ARRIVAL_S = 5.0
_PIECE_BYTES = 8 * 2**20


class MessageQueue:
    """Messages from workers to the driver, over an actor that reserves no CPU."""

    def __init__(self) -> None:
        self._actor: Any = _actor_on(_own_node_id(), _Messages).remote()

    def put(self, message: object) -> Any:
        """Send a message; return a Ray reference to the answer, set once the driver has handled it.

        The answer is whether the worker should stop.
        """
        return self._actor.put.remote(pickle.dumps(message))

    def send(self, message: object) -> Any:
        """Send a message; return a Ray reference that is set once it has arrived."""
        return self._actor.send.remote(pickle.dumps(message))

    def take(self) -> list[Any]:
        """Return the messages since the last call, oldest first; earlier ones count as handled."""
        import ray

        messages = ray.get(self._actor.take.remote(), timeout=_ANSWER_TIMEOUT_S)
        return [pickle.loads(message) for message in messages]  # noqa: S301 - our own workers'

    def ask_to_stop(self) -> None:
        """Make all answers from now on tell the workers to stop."""
        self._actor.ask_to_stop.remote()


class FileServer:
    """Files of the driver's machine, which workers on machines without access to them can copy."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._node_id = _own_node_id()

    def copy_to(self, folder: Path) -> None:
        """Copy all files into a folder here, a piece at a time; raises OutputError.

        The actor that reads them is started by this call, since most workers need none.
        """
        import ray

        files: Any = _actor_on(self._node_id, _Files).remote(self._folder, self._names)
        for name in self._names:
            with (folder / name).open("wb") as file:
                while piece := ray.get(files.read.remote(name, file.tell())):
                    with output_errors(folder / name):
                        file.write(piece)


class StateStore:
    """The newest state of each unfinished trial, for its next worker and for the driver to write.

    It is in the memory of an actor that reserves no CPU: a restarted trial finds its state there,
    even if the driver has not written it.
    """

    def __init__(self) -> None:
        self._actor: Any = _actor_on(_own_node_id(), _States).remote()
        self._sent: Any = None

    def put(self, number: int, state: bytes) -> Any:
        """Replace the state of a trial; return a Ray reference that is set once it has arrived."""
        return self._actor.put.remote(number, state)

    def send(self, number: int, state: bytes) -> None:
        """Send a state from a worker; do nothing if an earlier one does not arrive.

        Waits until it has arrived, so that it does so before the report of the same epoch, but not
        for long: without it, a lost trial only repeats some epochs.
        """
        import ray

        if self._sent is None or ray.wait([self._sent], timeout=_ARRIVAL_S)[0]:
            self._sent = self.put(number, state)
            ray.wait([self._sent], timeout=_ARRIVAL_S)

    def newest(self, number: int) -> bytes | None:
        """Return the newest state of a trial; None if there is none, or the driver is lost."""
        import ray
        from ray.exceptions import RayError

        try:
            state: bytes | None = ray.get(self._actor.newest.remote(number))
        except RayError:
            return None
        return state

    def take(self, number: int) -> bytes | None:
        """Return a trial's state for the driver to write; None if it has not changed since then."""
        import ray

        state: bytes | None = ray.get(self._actor.take.remote(number), timeout=_ANSWER_TIMEOUT_S)
        return state

    def drop(self, number: int) -> None:
        """Forget a trial that has ended, whatever still arrives of it."""
        self._actor.drop.remote(number)


def _own_node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _actor_on(node_id: str, kind: type) -> Any:
    """Make a class an actor on a node; the actor reserves no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(kind)


class _Messages:
    """The actor behind a queue."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._waiting: list[asyncio.Event] = []
        self._taken: list[asyncio.Event] = []
        self._should_stop = False

    async def put(self, message: bytes) -> bool:
        """Keep a message until it is handled; return whether its sender should stop."""
        handled = asyncio.Event()
        self._messages.append(message)
        self._waiting.append(handled)
        if not self._should_stop:  # else the driver may be gone
            await handled.wait()
        return self._should_stop

    async def send(self, message: bytes) -> None:
        """Keep a message."""
        self._messages.append(message)

    async def take(self) -> list[bytes]:
        """Return all messages; those of the previous call have been handled by now."""
        for handled in self._taken:
            handled.set()
        self._taken, self._waiting = self._waiting, []
        messages, self._messages = self._messages, []
        return messages

    async def ask_to_stop(self) -> None:
        """Answer True from now on, also to senders that are already waiting."""
        self._should_stop = True
        for handled in (*self._taken, *self._waiting):
            handled.set()


class _Files:
    """The actor behind a FileServer; it reads only the files that it was given."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names

    def read(self, name: str, start: int) -> bytes:
        """Read one piece of a file; empty at its end."""
        assert name in self._names
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(_PIECE_BYTES)


class _States:
    """The actor behind a StateStore."""

    def __init__(self) -> None:
        self._newest: dict[int, bytes] = {}
        self._unwritten: set[int] = set()
        self._dropped: set[int] = set()

    def put(self, number: int, state: bytes) -> None:
        """Keep a trial's state instead of its earlier one."""
        if number not in self._dropped:
            self._newest[number] = state
            self._unwritten.add(number)

    def newest(self, number: int) -> bytes | None:
        """Return a trial's state."""
        return self._newest.get(number)

    def take(self, number: int) -> bytes | None:
        """Return a trial's state if it has changed since the last call."""
        if number not in self._unwritten:
            return None
        self._unwritten.remove(number)
        return self._newest[number]

    def drop(self, number: int) -> None:
        """Forget a trial for good."""
        self._dropped.add(number)
        self._newest.pop(number, None)
        self._unwritten.discard(number)
