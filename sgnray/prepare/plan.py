"""What will be prepared: the dataset that raw data make, cut into jobs that any worker can do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sgnray.data.skeleton import Skeleton
from sgnray.prepare.clip import Clip, Skipped

Splits = dict[str, dict[str, list[str]]]
Item = TypeVar("Item")


class PartJob(Protocol):
    """A piece of the raw data, small enough to send; read again it gives the same."""

    @property
    def num_clips(self) -> int:
        """How many clips are in it, refused ones too."""

    def read(self) -> Iterator[Clip | Skipped]:
        """Return one result for each clip, in order, holding few of them in memory at a time."""


@dataclass(frozen=True)
class RawSource:
    """What raw data are, for the record and to know them again.

    `fingerprint` depends on the files' names and sizes, `stamp` on their places and times as well:
    it shows whether a file was rewritten while a preparation was interrupted.
    """

    num_files: int
    num_bytes: int
    fingerprint: str
    stamp: str


@dataclass(frozen=True)
class RawPlan:
    """One dataset to be made; the jobs' clips are in the order of their names.

    `splits` are the named training and test clips of each case that the source itself fixes.
    """

    dataset: str
    skeleton: Skeleton
    class_names: tuple[str, ...]
    jobs: tuple[PartJob, ...]
    skipped: tuple[Skipped, ...]
    source: RawSource
    splits: Splits | None = None

    @property
    def num_clips(self) -> int:
        """How many clips will be read."""
        return sum(job.num_clips for job in self.jobs)


def hash_lines(lines: Iterable[str]) -> str:
    """Return the sha256 of lines of text, in hex."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):  # one by one: there may be millions
        digest.update(("\n" * (number > 0) + line).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def cut_blocks(
    items: Iterable[Item], size_of: Callable[[Item], int], *, num_bytes: int
) -> Iterator[tuple[Item, ...]]:
    """Cut items into blocks, each of which ends with the item that makes it this large."""
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
