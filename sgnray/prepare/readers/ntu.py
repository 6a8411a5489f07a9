"""Recordings of NTU RGB+D: what their names say, and from their text to clips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.prepare.clip import Clip, ClipFacts, Skipped, refusal
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.ntu_text import read_skeletons
from sgnray.prepare.readers.source import RawFile, read_file
from sgnray.prepare.recording import ClipName, Recording

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton", re.ASCII)
_BLOCK_BYTES = 6 * 1024 * 1024  # parsed at once: the parser's start costs as much as 100 kB


@dataclass(frozen=True)
class NtuJob:
    """Some .skeleton files, of a dataset with this many classes."""

    files: tuple[RawFile, ...]
    num_classes: int

    @property
    def num_clips(self) -> int:
        """One clip for each file."""
        return len(self.files)

    def read(self) -> Iterator[Clip | Skipped]:
        """Give each file's clip, or why it is left out."""
        for file, found in read_ntu(self.files):
            try:
                facts = self._facts(file)
                if isinstance(found, ClipError):
                    raise found
                clip = Clip(facts, normalize(found, NTU25))
            except ClipError as error:
                yield Skipped(file.name, error.what)
            else:
                yield clip

    def _facts(self, file: RawFile) -> ClipFacts:
        name = parse_ntu_name(file.name)
        if name.action > self.num_classes:
            raise refusal(f"action {name.action} of {self.num_classes}", name=file.name)
        return name.facts(label=name.action - 1)


def read_ntu(files: Iterable[RawFile]) -> Iterator[tuple[RawFile, Recording | ClipError]]:
    """Read .skeleton files, whatever their names; a ClipError where one cannot be used."""
    block: list[tuple[RawFile, bytes | ClipError]] = []
    num_bytes = 0
    for file in files:
        block.append((file, _try_read(file)))
        num_bytes += file.size_bytes
        if num_bytes >= _BLOCK_BYTES:
            yield from _parse_block(block)
            block, num_bytes = [], 0
    yield from _parse_block(block)


def parse_ntu_name(file_name: str) -> ClipName:
    """Read SsssCcccPpppRrrrAaaa.skeleton; ClipError if the name is another."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise refusal("no NTU name (SsssCcccPpppRrrrAaaa.skeleton)", name=file_name)
    setup, camera, subject, replication, action = (int(number) for number in match.groups())
    if min(setup, camera, subject, replication, action) < 1:
        raise refusal("a number in the name is zero", name=file_name)
    return ClipName(file_name[:-9], action, setup, camera, subject, replication)


def _parse_block(
    block: list[tuple[RawFile, bytes | ClipError]],
) -> Iterator[tuple[RawFile, Recording | ClipError]]:
    recordings = iter(read_skeletons([data for _, data in block if isinstance(data, bytes)]))
    for file, data in block:
        yield file, next(recordings) if isinstance(data, bytes) else data


def _try_read(file: RawFile) -> bytes | ClipError:
    try:
        return read_file(file)
    except ClipError as error:
        return error
