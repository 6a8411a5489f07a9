"""The plan of a preparation: the dataset to make, cut into jobs that any worker can run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sgnray.data.info import NamedSplits
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError
from sgnray.prepare.clip import Clip
from sgnray.storage.location import Entry, Location

Item = TypeVar("Item")

JOB_BYTES = 16 * 2**20


@dataclass(frozen=True)
class PartJob:
    """A piece of the raw data, small enough to send; reading it again gives the same clips.

    `num_clips` includes refused ones. `read` yields one result for each clip, in order, and holds
    few of them in memory at a time.
    """

    num_clips: int
    read: Callable[[], Iterator[Clip | Skipped]]


@dataclass(frozen=True)
class RawSource:
    """The size and identity of raw data.

    `fingerprint` depends on the files' names and sizes, `stamp` also on their locations and times:
    it shows whether a file was rewritten while a preparation was interrupted.
    """

    num_files: int
    num_bytes: int
    fingerprint: str
    stamp: str


@dataclass(frozen=True)
class RawPlan:
    """One dataset to be made; the jobs' clips are in any order, and the dataset's sorted by name.

    `splits` are the named training and test clips of each case that the source itself fixes.
    """

    dataset: str
    skeleton: Skeleton
    class_names: tuple[str, ...]
    jobs: tuple[PartJob, ...]
    source: RawSource
    skipped: tuple[Skipped, ...] = ()
    splits: NamedSplits | None = None

    @property
    def num_clips(self) -> int:
        """How many clips will be read."""
        return sum(job.num_clips for job in self.jobs)


def find_file(location: Location) -> Entry:
    """Return a file's size and time; InputError if it is not a file."""
    entry = location.entry()
    if entry is None or entry.is_folder:
        raise InputError("file not found", where=str(location), now="check the path")
    return entry


def describe_file(location: Location, entry: Entry, *, content: str) -> RawSource:
    """Describe one file; `content` and a local file's digest distinguish it from a later one."""
    if location.is_local:
        content = f"{content}\t{location.digest()}"
    return RawSource(
        num_files=1,
        num_bytes=entry.size_bytes,
        fingerprint=hash_lines([f"{location.name}\t{entry.size_bytes}\t{content}"]),
        stamp=hash_lines([f"{location}\t{entry.changed}"]),
    )


def hash_lines(lines: Iterable[str]) -> str:
    """Return the sha256 of lines of text, in hex."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):  # one by one: there may be millions
        digest.update(("\n" * (number > 0) + line).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def cut_blocks(
    items: Iterable[Item], size_of: Callable[[Item], int], *, num_bytes: int = JOB_BYTES
) -> Iterator[tuple[Item, ...]]:
    """Cut items into blocks; a block ends as soon as it has at least `num_bytes`."""
    block: list[Item] = []
    size = 0
    for item in items:
        block.append(item)
        size += size_of(item)
        if size >= num_bytes:
            yield tuple(block)
            block, size = [], 0
    if block:
        yield tuple(block)
