"""Readers of padded clips: SGN's own NTU_CS.h5 family and CTR-GCN's NTU60_CS.npz family.

Their poses are already prepared and centered, and are read bit for bit. A clip is one row of
frames x numbers: a frame has those of actor 1, then those of actor 2.

Legend: T frames, M actors (always 2), D = V * C numbers of a pose.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import IO, Any

import numpy as np

from sgnray.data.skeleton import KINECT
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, Problem
from sgnray.prepare.clip import ClipFacts, Poses, as_float32, refusal
from sgnray.prepare.normalize import list_poses
from sgnray.prepare.plan import JOB_BYTES, PartJob, RawPlan, describe_file, find_file, hash_lines
from sgnray.prepare.readers.array_files import (
    Array,
    ArraySpec,
    ReadRows,
    cut_row_jobs,
    describe_array,
    find_array_problem,
    read_header,
    read_rows_at,
    reading_file,
    refuse_file,
)
from sgnray.prepare.readers.naming import find_case, name_classes, name_dataset
from sgnray.prepare.readers.raw_files import ZIP_MAGIC
from sgnray.storage.location import Entry, Location

H5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SUFFIX = ".npy"
# Keeps a chunk of rows that are compressed together while its other rows are read.
_CHUNK_CACHE_BYTES = 64 * 2**20
_SKELETONS = {2 * skeleton.pose_size: skeleton for skeleton in KINECT}
_NAME_DIGITS = 6
_NO_LABEL = -1

# The arrays of a part's poses and of its one-hot labels. All parts but "test" train.
ArrayNames = dict[str, tuple[str, str]]
_H5_PARTS: ArrayNames = {
    "train": ("x", "y"),
    "valid": ("valid_x", "valid_y"),
    "test": ("test_x", "test_y"),
}
_NPZ_PARTS: ArrayNames = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}


def plan_padded(location: Location) -> RawPlan:
    """Describe a file of padded clips; InputError with all problems if it is not one.

    The case comes from the file's name, else it is "fixed"; its training clips are those of the
    file, including the validation clips.
    """
    entry = find_file(location)
    read_rows, parts, specs = _open_arrays(location, entry)
    skeleton = _SKELETONS[specs[parts["train"][0]].shape[2]]
    num_classes = specs[parts["train"][1]].shape[1]
    dataset = name_dataset(location, skeleton, num_classes)
    jobs: list[PartJob] = []
    lines: list[str] = []
    cases: dict[str, list[str]] = {"train": [], "test": []}
    for part, (poses, one_hot) in parts.items():
        labels = _read_labels(partial(read_rows, one_hot), specs[one_hot])
        digits = max(_NAME_DIGITS, len(str(len(labels) - 1)))
        names = [f"{part}-{row:0{digits}d}" for row in range(len(labels))]
        rows = [
            ClipFacts(name, label)
            if label != _NO_LABEL
            else Skipped(name, "its label is not one-hot")
            for name, label in zip(names, labels, strict=True)
        ]
        jobs += cut_row_jobs(partial(read_rows, poses), specs[poses], rows, read_padded_clip)
        lines.append(f"{part} {labels}")
        cases["test" if part == "test" else "train"] += names
    return RawPlan(
        dataset=dataset,
        skeleton=skeleton,
        class_names=name_classes(dataset, num_classes),
        jobs=tuple(jobs),
        source=describe_file(location, entry, content=hash_lines(lines)),
        splits={find_case(dataset, location): cases},
    )


def holds_padded(location: Location) -> bool:
    """Return whether a file has the arrays of padded clips, by their names and shapes."""
    try:
        _open_arrays(location, find_file(location))
    except InputError:
        return False
    return True


def read_padded_clip(row_TX: Array) -> Poses:
    """List the poses of one padded clip, (T, M * D) numbers; ClipError if it has none.

    A clip ends with its last frame that is not zero: zero frames after it cannot be distinguished
    from padding.
    """
    numbers_TX = as_float32(row_TX, "a number is not finite, or too large for float32")
    frames_TMD = numbers_TX.reshape(len(row_TX), 2, -1)
    seen = np.flatnonzero((frames_TMD != 0).any(axis=(1, 2)))
    if seen.size == 0:
        raise refusal("every pose is zero")
    return list_poses(frames_TMD[: seen[-1] + 1])


def _open_arrays(
    location: Location, entry: Entry
) -> tuple[Callable[[str, int, int], Array], ArrayNames, dict[str, ArraySpec]]:
    """Return what reads rows of an array, the arrays of each part, and the specs of all arrays.

    InputError with all of their problems.
    """
    with reading_file(location), location.open() as file:
        magic = file.read(len(H5_MAGIC))
    if magic == H5_MAGIC:
        read_rows, describe, parts = partial(_read_h5, location), _describe_h5, _H5_PARTS
    elif magic.startswith(ZIP_MAGIC):
        read_rows = partial(read_npz, location, entry.changed)
        describe, parts = _describe_npz, _NPZ_PARTS
    else:
        raise refuse_file(location, "the file is neither HDF5 nor .npz")
    specs = describe(location, [name for names in parts.values() for name in names])
    if problems := _find_problems(specs, parts, entry):
        raise refuse_file(location, "the file does not contain padded clips", problems)
    return read_rows, parts, specs


def _find_problems(specs: dict[str, ArraySpec], parts: ArrayNames, entry: Entry) -> list[Problem]:
    """List all problems of the single arrays or, if there are none, of the arrays together."""
    problems: list[Problem] = []
    for names in parts.values():
        for name, num_axes in zip(names, (3, 2), strict=True):
            problem = find_array_problem(specs.get(name), num_axes, entry)
            problems += [Problem(name, problem)] if problem else []
    if problems:
        return problems
    for poses, labels in parts.values():
        num_rows, num_labels = specs[poses].shape[0], specs[labels].shape[0]
        if num_rows != num_labels:
            problems.append(Problem(labels, f"has {num_labels} rows, but {poses} has {num_rows}"))
    for poses, _ in parts.values():
        if (width := specs[poses].shape[2]) not in _SKELETONS:
            known = " or ".join(map(str, _SKELETONS))
            what = f"has {width} numbers in a frame, not {known} (two bodies)"
            problems.append(Problem(poses, what))
    for index, axis, what in ((0, 2, "numbers in a frame"), (1, 1, "classes")):
        sizes = sorted({specs[names[index]].shape[axis] for names in parts.values()})
        if len(sizes) > 1:
            listed = " and ".join(map(str, sizes))
            problems.append(Problem("its parts", f"differ in their {what}: {listed}"))
    if not any(specs[poses].shape[0] for poses, _ in parts.values()):
        problems.append(Problem("its parts", "contain no clip"))
    return problems


def _read_labels(read_rows: ReadRows, spec: ArraySpec) -> list[int]:
    labels: list[int] = []
    step = max(1, JOB_BYTES // spec.row_bytes)
    for start in range(0, spec.shape[0], step):
        rows = read_rows(start, min(start + step, spec.shape[0]))
        is_one_hot = ((rows != 0).sum(axis=1) == 1) & (rows == 1).any(axis=1)
        labels += np.where(is_one_hot, (rows != 0).argmax(axis=1), _NO_LABEL).tolist()
    return labels


def _describe_h5(location: Location, names: Sequence[str]) -> dict[str, ArraySpec]:
    """Describe the named datasets at the top of an HDF5 file that exist."""
    with _open_h5(location) as file:
        return {name: _describe_dataset(file, name) for name in names if name in file}


def _read_h5(location: Location, name: str, start: int, stop: int) -> Array:
    with _open_h5(location) as file:
        rows: Array = file[name][start:stop]
    return rows


@contextmanager
def _open_h5(location: Location) -> Iterator[Any]:
    import h5py

    with (
        reading_file(location),
        location.open() as stream,
        h5py.File(stream, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES) as file,
    ):
        yield file


def _describe_dataset(file: Any, name: str) -> ArraySpec:
    import h5py

    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        return ArraySpec(problem="is a link to somewhere else")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        return ArraySpec(problem="is not an array")
    if dataset.is_virtual or dataset.external:
        return ArraySpec(problem="is stored in another file")
    return ArraySpec(
        shape=tuple(int(size) for size in dataset.shape),
        dtype=dataset.dtype,
        stored_bytes=int(dataset.id.get_storage_size()),
        chunk_rows=int(dataset.chunks[0]) if dataset.chunks else 1,
    )


def _describe_npz(location: Location, names: Sequence[str]) -> dict[str, ArraySpec]:
    """Describe the named arrays of a .npz file that exist."""
    with reading_file(location), location.open() as file, zipfile.ZipFile(file) as archive:
        held = {info.filename: info for info in archive.infolist()}
        wanted = [name for name in names if name + _SUFFIX in held]
        return {name: _describe_member(archive, held[name + _SUFFIX]) for name in wanted}


def read_npz(location: Location, changed: int, name: str, start: int, stop: int) -> Array:
    """Read some rows; `changed` is the time of the file, so that a rewritten one is reopened."""
    try:
        with reading_file(location):
            stream, spec, data_start = _open_member(location, changed, name)
            return read_rows_at(stream, spec, data_start, start, stop)
    except Exception:
        _open_member.cache_clear()  # after a failure its cursor may be anywhere
        raise


@lru_cache(maxsize=1)
def _open_member(location: Location, changed: int, name: str) -> tuple[IO[bytes], ArraySpec, int]:
    """Open one array of an archive: reading on is cheap, going back starts from its beginning."""
    archive = zipfile.ZipFile(location.open())
    stream = archive.open(name + _SUFFIX)
    shape, dtype, _ = read_header(stream)
    return stream, ArraySpec(shape, dtype), stream.tell()


def _describe_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArraySpec:
    if info.flag_bits & 1:
        return ArraySpec(problem="is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return ArraySpec(problem="uses a compression that numpy does not write")
    with archive.open(info) as stream:
        return describe_array(stream, info.file_size, info.compress_size)
