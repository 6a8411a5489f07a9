"""Synthetic recordings: raw NTU-format text of people that move, for a first try and for tests.

Three cameras record each performance. A file's bytes depend only on the seed and the file's name,
not on how many other files are generated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgnray.data.datasets import NTU_CLIP_NAME
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.errors import OutputError, UsageError
from sgnray.seeding import derive_seed
from sgnray.storage.atomic import output_errors, refuse_uri, replace_folder
from sgnray.storage.lock import locked_folder
from sgnray.synth.actions import Action, list_actions
from sgnray.synth.people import draw_person, perform
from sgnray.synth.sensor import CAMERA_AZIMUTHS_RAD, draw_setup, record
from sgnray.synth.text import format_recording

FORMAT_VERSION = 1
MANIFEST_NAME = "synth.json"
_READY = "ready"
_PREVIOUS = "previous"


@dataclass(frozen=True)
class SynthResult:
    """What was written."""

    folder: Path
    num_files: int
    num_bytes: int
    class_names: tuple[str, ...]


def synthesize(
    out: Path,
    *,
    seed: int = 0,
    num_classes: int = 8,
    num_subjects: int = 16,
    num_setups: int = 4,
    num_replications: int = 2,
    overwrite: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> SynthResult:
    """Write a folder of raw .skeleton files and its synth.json; it appears complete or not at all.

    `on_progress` gets the files written so far and in all. Raises UsageError for counts that are
    out of range or a folder that already holds something, OutputError if it cannot be written.
    """
    counts = {
        "num_classes": num_classes,
        "num_subjects": num_subjects,
        "num_setups": num_setups,
        "num_replications": num_replications,
    }
    for name, count in counts.items():
        limit = len(list_actions()) if name == "num_classes" else 999
        _check_count(name.removeprefix("num_"), count, limit)
    refuse_uri(out)
    _check_folder(out, overwrite=overwrite)
    actions = list_actions()[:num_classes]
    takes = list(_list_takes(**counts))
    target = out.resolve()
    busy = OutputError(
        "another sgn synth is writing this folder",
        where=str(out),
        now="wait until it ends, or name another folder",
    )
    with locked_folder(target, busy=busy, shown=out) as aside:
        try:
            _check_folder(out, overwrite=overwrite)  # another process may just have written it
            with output_errors(out):
                num_bytes = _write_folder(aside, seed, counts, actions, takes, on_progress)
                replace_folder(aside / _READY, target, previous=aside / _PREVIOUS)
        finally:
            _clear(aside)
    num_files = len(takes) * len(CAMERA_AZIMUTHS_RAD)
    return SynthResult(out, num_files, num_bytes, tuple(action.name for action in actions))


@dataclass(frozen=True)
class _Take:
    """One performance, which every camera records; numbers as in the file names."""

    setup: int
    subject: int
    replication: int
    action: int

    def file_name(self, camera: int) -> str:
        return (
            f"S{self.setup:03d}C{camera:03d}P{self.subject:03d}"
            f"R{self.replication:03d}A{self.action:03d}.skeleton"
        )


def _check_count(name: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise UsageError(
            f"the number of {name} must be from 1 to {limit}, got {count}",
            where=f"--{name}",
            now=f"choose a number from 1 to {limit}",
        )


def _check_folder(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST_NAME).is_file():
        # Replacing a folder deletes it, so only our own are ever replaced.
        raise UsageError(
            "this exists already and does not contain synthetic recordings",
            where=str(out),
            now="name a folder that does not exist yet",
        )
    if not overwrite:
        raise UsageError(
            "this folder already contains synthetic recordings",
            where=str(out),
            now="add --overwrite to replace them, or name another folder",
        )
    if unexpected := sorted(item.name for item in out.iterdir() if not _is_ours(item)):
        raise UsageError(
            f"this folder also contains other files: {', '.join(unexpected[:3])}",
            where=str(out),
            now="move them away, or name another folder",
        )


def _is_ours(item: Path) -> bool:
    is_recording = item.suffix == ".skeleton" and NTU_CLIP_NAME.fullmatch(item.stem)
    return item.name == MANIFEST_NAME or bool(is_recording)


def _list_takes(
    num_classes: int, num_subjects: int, num_setups: int, num_replications: int
) -> Iterator[_Take]:
    """List the performances; as in NTU RGB+D, a subject appears in some of the setups only."""
    period = min(num_subjects, num_setups)
    for setup in range(1, num_setups + 1):
        for subject in range(1, num_subjects + 1):
            if (setup - subject) % period:
                continue
            for replication in range(1, num_replications + 1):
                for action in range(1, num_classes + 1):
                    yield _Take(setup, subject, replication, action)


def _clear(aside: Path) -> None:
    for name in (_READY, _PREVIOUS):
        shutil.rmtree(aside / name, ignore_errors=True)


def _write_folder(
    aside: Path,
    seed: int,
    counts: dict[str, int],
    actions: tuple[Action, ...],
    takes: list[_Take],
    on_progress: OnProgress,
) -> int:
    _clear(aside)  # of what a killed process left
    folder = aside / _READY
    folder.mkdir()
    num_bytes, num_files, total = 0, 0, len(takes) * len(CAMERA_AZIMUTHS_RAD)
    for take in takes:
        for name, content in _record_take(seed, take, actions[take.action - 1]):
            (folder / name).write_bytes(content)
            num_bytes, num_files = num_bytes + len(content), num_files + 1
            on_progress(num_files, total)
    manifest = {
        "format_version": FORMAT_VERSION,
        "dataset": "synth",
        "class_names": [action.name for action in actions],
        "seed": seed,
        **counts,
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")
    return num_bytes


def _record_take(seed: int, take: _Take, action: Action) -> Iterator[tuple[str, bytes]]:
    """Perform once and record with each camera; yields file names and contents."""
    place = (take.setup, take.subject, take.replication)
    # Both actions of a movement have the same performance, so that a model that remembers its poses
    # from another camera still cannot tell which of the two actions it is.
    rng = _generator(seed, "performance", *place, (take.action - 1) // 2)
    lead = draw_person(_generator(seed, "subject", take.subject))
    # As in NTU RGB+D, the person turns to camera 2 in one replication and to camera 3 in the next.
    facing_rad = CAMERA_AZIMUTHS_RAD[2 + (take.replication - 1) % 2]
    motions = perform(action, lead, draw_person(rng), facing_rad=facing_rad, rng=rng)
    setup = draw_setup(_generator(seed, "setup", take.setup))
    # Published files have either kind of line end.
    newline = "\r\n" if take.setup % 2 else "\n"
    for camera in CAMERA_AZIMUTHS_RAD:
        recording = record(
            motions, setup, camera, _generator(seed, "sensor", camera, *place, take.action)
        )
        yield take.file_name(camera), format_recording(recording, newline=newline)


def _generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, f"synth {purpose}", *numbers))
