"""The formats of raw recordings, in one table, which all that reads recordings asks.

A new format is a row here and a module with its `tell` and its reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sgnray.data.skeleton import COCO17, KINECT20, MEDIAPIPE33, NTU25, OPENPOSE25, Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers import joint_csv, keypoints, ntu, nwucla, openpose, pyskl
from sgnray.prepare.recording import ClipName, Recording
from sgnray.synth.generate import MANIFEST_NAME as SYNTH_FILE

LABELS_FILE = "labels.csv"
SIDECARS = (SYNTH_FILE, LABELS_FILE)  # beside recordings, and none themselves
VIDEOS = (
    *(".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"),
    *(".ts", ".3gp"),
)
HEAD_BYTES = 64 * 1024
KNOWN = (
    "give recordings of NTU RGB+D (.skeleton), NW-UCLA, OpenPose or COCO key points (.json), "
    "MediaPipe or Kinect (.csv), or PYSKL (.pkl), or folders or .zip files of them"
)

ReadFiles = Callable[[Sequence[bytes], Skeleton], list[Recording | ClipError]]


def _refuse_name(_: str) -> ClipName:
    raise refusal("a name that says nothing")


def _refuse_label(*_: object) -> int:
    raise refusal("a name without a label")


@dataclass(frozen=True)
class RecordedFormat:
    """A raw format of one recording per file; OpenPose's frames of a recording count as one file.

    `tell` gives the skeleton that the first HEAD_BYTES of a file hold, None where they are of
    another format. `read_files` gives a recording or a ClipError for each file's bytes. Where a
    published dataset has the format, `parse_name` reads its file names, `find_label` takes a name
    and the number of classes, `skeleton` is what it has, and `dataset` its name, if it is one.
    """

    name: str
    suffixes: tuple[str, ...]
    skeleton: Skeleton
    tell: Callable[[bytes], Skeleton | None]
    read_files: ReadFiles
    parse_name: Callable[[str], ClipName] = _refuse_name
    find_label: Callable[[ClipName, int], int] = _refuse_label
    dataset: str = ""

    def has_name(self, name: str) -> bool:
        """Tell whether a file has a name of the published dataset."""
        try:
            return bool(self.parse_name(name))
        except ClipError:
            return False


def one_by_one(read: Callable[[bytes, Skeleton], Recording]) -> ReadFiles:
    """Make a reader of files of a reader of one."""

    def read_files(files: Sequence[bytes], skeleton: Skeleton) -> list[Recording | ClipError]:
        found: list[Recording | ClipError] = []
        for data in files:
            try:
                found.append(read(data, skeleton))
            except ClipError as error:
                found.append(error)
        return found

    return read_files


NTU = RecordedFormat(
    "NTU RGB+D",
    (".skeleton",),
    NTU25,
    lambda head: NTU25 if re.match(rb"\s*\d+\s", head) else None,
    lambda files, _: ntu.read_skeletons(files),
    ntu.parse_ntu_name,
    ntu.find_ntu_label,
)
NWUCLA = RecordedFormat(
    "NW-UCLA",
    (".json",),
    KINECT20,
    lambda head: KINECT20 if re.match(rb'\s*\{.*"skeletons"', head, re.DOTALL) else None,
    one_by_one(lambda data, _: nwucla.read_nwucla(data)),
    nwucla.parse_nwucla_name,
    nwucla.find_nwucla_label,
    "nwucla",
)
FORMATS = {
    known.name: known
    for known in (
        NTU,
        NWUCLA,
        RecordedFormat(
            "OpenPose",
            (".json",),
            OPENPOSE25,
            openpose.tell_openpose,
            one_by_one(openpose.read_openpose),
        ),
        RecordedFormat(
            "COCO key points",
            (".json",),
            COCO17,
            keypoints.tell_keypoints,
            one_by_one(keypoints.read_keypoints),
        ),
        RecordedFormat(
            "MediaPipe",
            (".csv",),
            MEDIAPIPE33,
            joint_csv.tell_mediapipe_csv,
            one_by_one(joint_csv.read_joint_csv),
        ),
        RecordedFormat(
            "Kinect",
            (".csv",),
            NTU25,
            joint_csv.tell_kinect_csv,
            one_by_one(joint_csv.read_joint_csv),
        ),
        RecordedFormat(
            pyskl.CLIP_FORMAT,
            pyskl.SUFFIXES,
            COCO17,
            pyskl.tell_clip,
            one_by_one(pyskl.read_clip),
        ),
    )
}
_SUFFIXES = tuple(sorted({suffix for known in FORMATS.values() for suffix in known.suffixes}))


def has_known_suffix(name: str) -> bool:
    """Tell whether a file could be a recording; macOS puts a "._" twin beside each in archives."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def stem_of(name: str) -> str:
    """Give a file's name without the suffix of a recording."""
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def tell_format(name: str, peek: Callable[[], bytes]) -> tuple[RecordedFormat, Skeleton] | None:
    """Tell a file's format by what `peek` gives of it, and which skeleton it has.

    It stays closed if its suffix leaves one format: NTU RGB+D has 114,000 files. If the content
    does not show the format, the name that it has in a published dataset does.
    """
    candidates = [known for known in FORMATS.values() if name.lower().endswith(known.suffixes)]
    if len(candidates) == 1 and candidates[0] is NTU:
        return NTU, NTU25
    head = peek() if candidates else b""
    for known in candidates:
        if (skeleton := known.tell(head)) is not None:
            return known, skeleton
    return next(((known, known.skeleton) for known in candidates if known.has_name(name)), None)
