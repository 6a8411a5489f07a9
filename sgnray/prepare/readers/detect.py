"""Detect the kind of raw data at a path by its content, not its suffix."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, UsageError
from sgnray.prepare.plan import RawPlan
from sgnray.prepare.readers.described import plan_described
from sgnray.prepare.readers.find_recordings import refuse_place
from sgnray.prepare.readers.format_table import describe_formats, describe_published
from sgnray.prepare.readers.labeled import plan_labeled
from sgnray.prepare.readers.listing import join_listings, list_files
from sgnray.prepare.readers.named_arrays import find_named_arrays, plan_named_arrays
from sgnray.prepare.readers.padded import H5_MAGIC, plan_padded
from sgnray.prepare.readers.pickles import is_pickle
from sgnray.prepare.readers.pyskl import SUFFIXES as PICKLE_SUFFIXES
from sgnray.prepare.readers.pyskl import plan_pyskl
from sgnray.prepare.readers.raw_files import ZIP_ERRORS, ZIP_MAGIC
from sgnray.prepare.readers.recordings import OWN, detect_recordings, plan_recordings
from sgnray.prepare.readers.tables import is_table
from sgnray.storage.location import Location, locate, resolve

_HEAD_BYTES = 16
_FOLDER_SUFFIXES = (".yaml", ".yml", ".h5", ".hdf5", ".npz", *PICKLE_SUFFIXES)
_OTHERS = (
    "NTU_CS.h5, NTU60_CS.npz, ntu60_3danno.pkl; a folder of train_data_joint.npy, train_label.pkl "
    "and those of val; or the .yaml of a table of clips"
)


class Kind(Enum):
    """What one place holds."""

    RECORDINGS = "a folder or .zip of recordings"
    PADDED = "an .h5 or .npz file of padded clips"
    NAMED_ARRAYS = "a folder of .npy arrays"
    PICKLE = "a PYSKL pickle"
    DESCRIPTION = "a description of a table of clips"
    TABLE = "a table of clips"
    UNKNOWN = "something else"


_PLANNERS: dict[Kind, Callable[[Location], RawPlan]] = {
    Kind.PADDED: plan_padded,
    Kind.NAMED_ARRAYS: plan_named_arrays,
    Kind.PICKLE: plan_pyskl,
    Kind.DESCRIPTION: plan_described,
}


def detect(raw: Sequence[Location], name_pattern: str | None = None) -> RawPlan:
    """Detect what the places hold and plan their dataset.

    `name_pattern` reads the names of recordings, such as a{label}_s{subject}_v{camera}. UsageError
    if a place does not exist or they do not belong together, InputError if it is not raw data.
    """
    if not raw:
        raise UsageError("no raw data are named", where="raw", now=f"give {_describe_known()}")
    kinds = [detect_kind(place) for place in raw]
    if set(kinds) == {Kind.RECORDINGS}:
        return _plan_recordings(raw, name_pattern)
    return _plan_one(raw, kinds, name_pattern)


def _plan_one(raw: Sequence[Location], kinds: Sequence[Kind], name_pattern: str | None) -> RawPlan:
    """Plan the dataset of a source that describes its own clips."""
    if name_pattern is not None:
        raise UsageError(
            "a name pattern is only for recordings, in folders or .zip files",
            where=f"--name-pattern {name_pattern!r}",
            now="leave it out: this source describes its own clips",
        )
    if len(raw) > 1:
        raise _refuse_several(raw, [kind.value for kind in kinds])
    if kinds[0] is Kind.TABLE:
        raise UsageError(
            "a table of clips needs the .yaml that names its joints, classes and splits",
            where=f"--raw {raw[0]}",
            now="give that .yaml file; the README shows one",
        )
    if kinds[0] is Kind.UNKNOWN:
        raise _nothing_found(raw[0])
    return _PLANNERS[kinds[0]](raw[0])


def _plan_recordings(raw: Sequence[Location], name_pattern: str | None) -> RawPlan:
    listings = [list_files(place) for place in raw]
    is_described = name_pattern is not None
    recorded = [detect_recordings(item, is_described=is_described) for item in listings]
    if len(raw) == 1 and recorded == [None] and (inner := _only_source(raw[0])) is not None:
        entry = inner.entry()
        if entry is not None and entry.is_folder:
            return _plan_one([inner], [Kind.NAMED_ARRAYS], name_pattern)
        return detect([inner], name_pattern)
    for place, listing, what in zip(raw, listings, recorded, strict=True):
        if what is None and len(raw) > 1 and _only_source(place) is not None:
            raise _refuse_several(raw, [kind or "a dataset on its own" for kind in recorded])
        if what is None:
            raise _nothing_found(place, listing.unused)
    _check_alike(raw, recorded)
    listing = join_listings(listings)
    what = recorded[0]
    assert what is not None
    if what == OWN:
        return plan_labeled(listing, raw, name_pattern)
    return plan_recordings(listing, what)


def detect_kind(place: Location) -> Kind:
    """Look at the first bytes of a file; UsageError if it does not exist."""
    entry = place.entry()
    if entry is None:
        raise UsageError(
            "raw folder or file not found",
            where=f"--raw {place}",
            now="give the folder or the .zip that contains the recordings",
        )
    if entry.is_folder:
        return Kind.RECORDINGS
    try:
        with place.open() as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(
            f"it cannot be read: {error.strerror or error}",
            where=f"--raw {place}",
            now="make it readable, or give another path",
        ) from error
    return _kind_of_file(place, head)


def _kind_of_file(place: Location, head: bytes) -> Kind:
    if head.startswith(H5_MAGIC):
        return Kind.PADDED
    if head.startswith(ZIP_MAGIC):
        return Kind.PADDED if _holds_arrays(place) else Kind.RECORDINGS
    if is_pickle(head):
        return Kind.PICKLE
    if is_table(head):
        return Kind.TABLE
    if place.name.lower().endswith((".yaml", ".yml")):
        return Kind.DESCRIPTION
    return Kind.RECORDINGS if list_files(place).files else Kind.UNKNOWN


def _holds_arrays(place: Location) -> bool:
    try:
        with place.open() as file, zipfile.ZipFile(io.BufferedReader(file)) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return False  # the reader of recordings reports the error
    if find_named_arrays(names):
        what = "arrays and their pickles of labels are not read in a .zip"
        raise UsageError(what, where=f"--raw {place}", now="unpack it, and give the folder")
    return any(name.endswith(".npy") for name in names)


def _only_source(folder: Location) -> Location | None:
    """Find the one file of a folder, or folder of arrays, that is a dataset on its own."""
    entry = folder.entry()
    if entry is None or not entry.is_folder:
        return None
    items = [item.path for item in folder.walk() if not item.problem]
    arrays = find_named_arrays(items)
    paths = sorted({arrays.get(path, path) for path in items if path.endswith(_FOLDER_SUFFIXES)})
    if len(paths) > 1:
        others = [path for path in paths if path not in arrays.values()]
        now = f"name one, for example --raw {folder.at(paths[0])}"
        if others and len(others) < len(paths):
            now = f"give --raw {folder.at(others[0])}, or move that file to another folder"
        raise UsageError(
            f"{len(paths)} files in this folder could be a dataset",
            where=f"--raw {folder}",
            now=now,
        )
    if paths and folder.is_local:
        return locate(Path(paths[0]))  # UsageError if its name is not UTF-8
    return folder.at(paths[0]) if paths else None


def _check_alike(raw: Sequence[Location], recorded: Sequence[str | None]) -> None:
    """Raise UsageError if the places do not make one dataset, or one of them is given twice."""
    distinct = {str(resolve(place.path)) if place.is_local else place for place in raw}
    is_twice = len(distinct) < len(raw)
    if len(set(recorded)) == 1 and not is_twice:
        return
    raise UsageError(
        "the same path is given twice" if is_twice else "these paths do not make one dataset",
        where=", ".join(
            f"--raw {place}: {what}" for place, what in zip(raw, recorded, strict=True)
        ),
        now="give it once" if is_twice else "prepare them one by one, each with its own --out",
    )


def _refuse_several(raw: Sequence[Location], found: Sequence[str]) -> UsageError:
    return UsageError(
        "several --raw make one dataset only if all are folders or .zip files of recordings",
        where=", ".join(f"{place}: {what}" for place, what in zip(raw, found, strict=True)),
        now="prepare them one by one",
    )


def _describe_known() -> str:
    estimated = f"what pose estimators write: {describe_formats(without_published=True)}"
    return f"a folder or .zip of {describe_published()}, or of {estimated}; {_OTHERS}"


def _nothing_found(place: Location, refused: Sequence[Skipped] = ()) -> InputError:
    now = f"give {_describe_known()}; or generate some: sgn synth OUT"
    return refuse_place(place, f"--raw {place}", refused, now=now, what="no raw data found")
