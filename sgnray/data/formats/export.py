"""A prepared dataset as a file of the field's other tools: CTR-GCN's .npz, SGN's .h5, PYSKL's .pkl.

The file is streamed: only a few clips are in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from sgnray.data.datasets import NTU_CLIP_NAME
from sgnray.data.formats.padded import NUM_BODIES, last_frames, write_h5, write_npz
from sgnray.data.formats.pyskl import write_pyskl
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.protocols import Split, resolve_case, split_clips, split_counts
from sgnray.data.skeleton import COCO17, ESTIMATED, KINECT
from sgnray.data.store import SkeletonDataset
from sgnray.errors import InputError, UsageError, count_of
from sgnray.storage.atomic import make_parent, refuse_existing, written_atomically

Format = Literal["npz", "h5", "pyskl"]

_READABLE_JOINTS = tuple(skeleton.num_joints for skeleton in KINECT)
_READ_ORIGIN = 1  # the origin of both skeletons that PYSKL files are read with
_NTU = ("ntu60", "ntu120")
_READ_DIRECTLY = "read clips.arrow in this folder, which pyarrow, polars, DuckDB and pandas open"


@dataclass(frozen=True)
class ExportResult:
    """A written file; `losses` lists what it does not contain."""

    path: Path
    num_clips: int
    num_bytes: int
    losses: tuple[str, ...]


def export_dataset(
    dataset: SkeletonDataset,
    out: Path,
    *,
    to: Format,
    case: str | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> ExportResult:
    """Write a dataset as one file: npz and h5 hold one case, pyskl all if `case` is None.

    `on_progress` is called with (clips written, clips). UsageError if a case must be named,
    `out` exists and not `overwrite`, or pyskl would need pixels; InputError if the format cannot
    hold the dataset; OutputError if writing fails. Then nothing is left behind.
    """
    _check_outside(out, dataset)
    if to == "pyskl":
        if _was_pixels(dataset):
            raise UsageError(
                "its poses are normalized, in meters with y up, and PYSKL's files in 2D contain "
                "pixels",
                where=f"--to pyskl, {dataset.folder}",
                now=_READ_DIRECTLY,
            )
        splits, losses = _gather_splits(dataset, case)
        losses += _pyskl_losses(dataset)
        num_clips = len(dataset.clips.names)
        write = partial(write_pyskl, splits=splits)
    else:
        _check_padded(dataset)
        name, clips = dataset.info.dataset, dataset.clips
        split = split_clips(name, resolve_case(name, case, clips.splits), clips)
        losses = _padded_losses(dataset, split)
        num_clips = len(split.clips)
        write = partial(write_npz if to == "npz" else write_h5, split=split)
    refuse_existing(out, overwrite=overwrite)
    make_parent(out)
    with written_atomically(out) as path:
        write(path, dataset, on_progress=on_progress)
    return ExportResult(out, num_clips, out.stat().st_size, tuple(losses))


def _check_outside(out: Path, dataset: SkeletonDataset) -> None:
    """Raise UsageError if the file would be inside the dataset's own folder."""
    if dataset.folder.resolve() in out.resolve().parents:
        raise UsageError(
            "the output would be inside the dataset",
            where=str(out),
            now="choose another file with --out",
        )


def _was_pixels(dataset: SkeletonDataset) -> bool:
    """Return whether the poses were key points of a pose estimator in an image."""
    skeleton = dataset.skeleton
    return skeleton.num_coordinates == 2 and skeleton.name in ESTIMATED


def _check_padded(dataset: SkeletonDataset) -> None:
    if dataset.num_bodies > NUM_BODIES or dataset.skeleton.num_coordinates != 3:
        raise InputError(
            f"padded files contain two bodies in three coordinates, this dataset has "
            f"{dataset.num_bodies} in {dataset.skeleton.num_coordinates}",
            where=str(dataset.folder),
            now=_READ_DIRECTLY if _was_pixels(dataset) else "export it with --to pyskl",
        )


def _gather_splits(
    dataset: SkeletonDataset, case: str | None
) -> tuple[dict[str, Split], list[str]]:
    """Return the named case, or all whose parts are not empty; and a message per case left out."""
    name, clips = dataset.info.dataset, dataset.clips
    if case is not None:
        case = resolve_case(name, case, clips.splits)
        return {case: split_clips(name, case, clips)}, []
    splits, losses = {}, []
    for found, (num_train, num_test) in split_counts(name, clips).items():
        if num_train and num_test:
            splits[found] = split_clips(name, found, clips)
        else:
            losses.append(f"the case {found} is left out: one of its parts is empty")
    return splits, losses


def _padded_losses(dataset: SkeletonDataset, split: Split) -> list[str]:
    losses = [
        "names, setups, cameras, subjects and replications of the clips, and the names of the "
        "classes, are not in the file"
    ]
    if (num_left := len(dataset.clips.names) - len(split.clips)) > 0:
        losses.append(f"left out: {count_of(num_left, 'clip')} in neither part of the case")
    is_longer = last_frames(dataset) + 1 < dataset.clips.num_frames
    if num_longer := int(np.count_nonzero(is_longer[split.clips])):
        losses.append(
            f"the zero frames at the end of {count_of(num_longer, 'clip')} cannot be "
            "distinguished from padding"
        )
    if dataset.skeleton.num_joints not in _READABLE_JOINTS:
        losses.append("sgnray cannot read the file back: it reads padded files of 25 and 20 joints")
    return losses


def _pyskl_losses(dataset: SkeletonDataset) -> list[str]:
    skeleton, losses = dataset.skeleton, []
    if not all(NTU_CLIP_NAME.fullmatch(name) for name in dataset.clips.names):
        losses.append(
            "setups, cameras, subjects and replications of the clips, and the names of the "
            "classes, are not in the file"
        )
    elif dataset.info.dataset not in _NTU:
        losses.append("because of the clips' names, sgnray reads the file back as NTU RGB+D")
    is_readable = skeleton.num_joints in _READABLE_JOINTS and skeleton.num_coordinates == 3
    if (skeleton.num_joints, skeleton.num_coordinates) == (COCO17.num_joints, 2):
        losses.append("sgnray reads the file back as pixels with y down, and rescales its poses")
    elif not is_readable or dataset.num_bodies > NUM_BODIES:
        losses.append(
            "sgnray cannot read the file back: it reads one or two bodies of 25 or 20 joints in 3D"
        )
    elif num_moved := _count_not_centered(dataset):
        losses.append(
            f"{count_of(num_moved, 'clip')} {'is' if num_moved == 1 else 'are'} not centered on "
            "actor 1; reading the file back centers them"
        )
    return losses


def _count_not_centered(dataset: SkeletonDataset) -> int:
    """Count clips without a main actor, or whose main actor's first origin is not at zero."""
    main = np.flatnonzero(dataset.bodies_P == 0)
    starts, ends = dataset.offsets[:-1], dataset.offsets[1:]
    first = np.append(main, len(dataset.bodies_P))[np.searchsorted(main, starts)]
    origins = dataset.poses_PVC[first[first < ends], _READ_ORIGIN]
    return len(starts) - int((origins == 0).all(axis=1).sum())
