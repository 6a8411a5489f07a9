"""Reader of PYSKL's pickles, the ntu60_3danno.pkl family, one array at a time.

Their key points are camera coordinates in meters, M actors x T frames x V joints x C coordinates,
which are centered here. Legend: D = V * C numbers of a pose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sgnray.data.datasets import read_missing_names, tell_ntu
from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.prepare.clip import Clip, ClipFacts, Poses, Skipped, refusal
from sgnray.prepare.normalize import list_poses
from sgnray.prepare.plan import RawPlan, hash_lines
from sgnray.prepare.readers.naming import describe_file, find_file, name_classes, name_dataset
from sgnray.prepare.readers.ntu import parse_ntu_name
from sgnray.prepare.readers.padded_arrays import Array, reading
from sgnray.prepare.readers.pickles import ArraySpan, PickleError
from sgnray.prepare.readers.pyskl_index import Annotation, PysklIndex, read_index, read_splits
from sgnray.prepare.recording import ClipName, FloatArray
from sgnray.storage.location import Location

_JOB_BYTES = 16 * 2**20


@dataclass(frozen=True)
class PysklJob:
    """Some clips of a pickle, and where their arrays lie."""

    location: Location
    origin_joint: int
    facts: tuple[ClipFacts, ...]
    keypoints: tuple[ArraySpan, ...]

    @property
    def num_clips(self) -> int:
        """How many clips are in it, refused ones too."""
        return len(self.facts)

    def read(self) -> Iterator[Clip | Skipped]:
        """Give one result for each clip; InputError if the file cannot be read any more."""
        with reading(self.location, (OSError,)), self.location.open() as stream:
            for facts, keypoint in zip(self.facts, self.keypoints, strict=True):
                yield self._read_clip(stream, facts, keypoint)

    def _read_clip(
        self, stream: pa.NativeFile, facts: ClipFacts, keypoint: ArraySpan
    ) -> Clip | Skipped:
        try:
            return Clip(facts, center(keypoint.load(stream), origin_joint=self.origin_joint))
        except PickleError as error:
            return Skipped(facts.name, str(error))
        except ClipError as error:
            return Skipped(facts.name, error.what)


def plan_pyskl(location: Location) -> RawPlan:
    """Describe a PYSKL pickle; InputError if it is torn, no such file, or could run code.

    Where all names are NTU's, the dataset is ntu60 or ntu120 and the names tell setup, camera,
    subject and replication.
    """
    entry = find_file(location)
    index = read_index(location)
    ntu_names = _read_ntu_names(index)
    num_classes = max(annotation.label for annotation in index.annotations) + 1
    dataset = _tell_ntu(ntu_names) or name_dataset(location, index.skeleton, num_classes)
    kept, skipped = _choose(index.annotations, ntu_names)
    facts = [_describe(annotation, ntu_names) for annotation in kept]
    return RawPlan(
        dataset=dataset,
        skeleton=index.skeleton,
        class_names=name_classes(dataset, num_classes),
        jobs=tuple(_cut_jobs(location, index.skeleton.origin or 0, facts, kept)),
        skipped=tuple(skipped),
        source=describe_file(
            location, entry, content=hash_lines(f"{fact.name} {fact.label}" for fact in facts)
        ),
        splits=read_splits(index, dataset, {fact.name for fact in facts}, location),
    )


def center(keypoint_MTVC: Array, *, origin_joint: int) -> Poses:
    """Put actor 1's origin joint at zero in the first frame that has her, and list the poses.

    An actor that is all zero in a frame is not there, and stays zero. ClipError if actor 1 never
    is, or a number is not finite.
    """
    num_actors, num_frames = keypoint_MTVC.shape[:2]
    with np.errstate(over="ignore", invalid="ignore"):
        frames_TMVC: FloatArray = keypoint_MTVC.astype(np.float32).transpose(1, 0, 2, 3)
        is_there_TM = (frames_TMVC != 0).any(axis=(2, 3))
        seen = np.flatnonzero(is_there_TM[:, 0])
        if seen.size == 0:
            raise refusal("every frame of the main actor is zero")
        origin = frames_TMVC[seen[0], 0, origin_joint]
        # Poses that are centered already stay as they are, the sign of their zeros too.
        moved_TMVC = frames_TMVC - origin if origin.any() else frames_TMVC
    moved_TMVC = np.where(is_there_TM[:, :, None, None], moved_TMVC, np.float32(0))
    if not np.isfinite(moved_TMVC).all():
        raise refusal("a coordinate is not finite, or beyond float32")
    return list_poses(moved_TMVC.reshape(num_frames, num_actors, -1))


def _read_ntu_names(index: PysklIndex) -> dict[str, ClipName]:
    """Read what the names say, if all of them are NTU's; else nothing."""
    if index.skeleton is not NTU25:
        return {}
    try:
        return {
            annotation.name: parse_ntu_name(f"{annotation.name}.skeleton")
            for annotation in index.annotations
        }
    except ClipError:
        return {}


def _tell_ntu(ntu_names: dict[str, ClipName]) -> str | None:
    if not ntu_names:
        return None
    return tell_ntu(
        last_setup=max(name.setup or 0 for name in ntu_names.values()),
        last_action=max(name.action for name in ntu_names.values()),
    )


def _choose(
    annotations: Sequence[Annotation], ntu_names: dict[str, ClipName]
) -> tuple[list[Annotation], list[Skipped]]:
    """Part the clips that will be read from those that are left out already."""
    missing = read_missing_names() if ntu_names else frozenset()
    kept: dict[str, Annotation] = {}
    skipped: list[Skipped] = []
    for annotation in annotations:
        name, frames = annotation.name, annotation.keypoint.final_shape[1]
        ntu_name = ntu_names.get(name)
        if name in missing:
            reason = "on the published list of missing skeletons"
        elif name in kept:
            reason = "there is another clip of this name"
        elif annotation.total_frames != frames:
            reason = f"total_frames is {annotation.total_frames}, but {frames} are there"
        elif ntu_name and ntu_name.action - 1 != annotation.label:
            reason = f"its label is {annotation.label}, not {ntu_name.action - 1} as its name says"
        else:
            kept[name] = annotation
            continue
        skipped.append(Skipped(name, reason))
    return list(kept.values()), skipped


def _describe(annotation: Annotation, ntu_names: dict[str, ClipName]) -> ClipFacts:
    ntu_name = ntu_names.get(annotation.name)
    if ntu_name is None:
        return ClipFacts(annotation.name, annotation.label)
    return ntu_name.facts(label=annotation.label)


def _cut_jobs(
    location: Location, origin_joint: int, facts: Sequence[ClipFacts], kept: Sequence[Annotation]
) -> Iterator[PysklJob]:
    """Cut the clips into jobs of about 16 MiB, in the order of the file."""
    start = num_bytes = 0
    for index, annotation in enumerate(kept, start=1):
        num_bytes += annotation.keypoint.num_bytes
        if num_bytes < _JOB_BYTES and index < len(kept):
            continue
        keypoints = tuple(annotation.keypoint for annotation in kept[start:index])
        yield PysklJob(location, origin_joint, tuple(facts[start:index]), keypoints)
        start, num_bytes = index, 0
