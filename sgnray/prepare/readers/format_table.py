"""The tables of raw recordings: their formats, and the published datasets that have them.

A new format needs a row in `_READERS` and a module that detects and reads it; a new dataset in a
known format needs a row in PUBLISHED.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sgnray.data.datasets import DATASETS
from sgnray.data.skeleton import KINECT20, MEDIAPIPE33, NTU25, Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import ClipFacts, Recording, refusal
from sgnray.prepare.readers import (
    azure,
    joint_csv,
    keypoints,
    kinetics,
    ntu,
    nwucla,
    openpose,
    pyskl,
)
from sgnray.synth.generate import MANIFEST_NAME as SYNTH_FILE

LABELS_FILE = "labels.csv"
SIDECARS = (SYNTH_FILE, LABELS_FILE)  # next to recordings, but not recordings
VIDEOS = (
    *(".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"),
    *(".ts", ".3gp"),
)
HEAD_BYTES = 64 * 1024

Detect = Callable[[bytes], Skeleton | None]
ReadFiles = Callable[[Sequence[bytes], Skeleton], list[Recording | ClipError]]


@dataclass(frozen=True)
class RecordedFormat:
    """A raw format of one recording per file; the frames of a recording count as one file.

    `detect` gets the first HEAD_BYTES of a file, without a byte order mark. It returns the
    skeleton, or None for another format, and raises ClipError for a file of this format that holds
    nothing.
    `read_files` returns a recording or a ClipError for each file's bytes.
    """

    name: str
    suffixes: tuple[str, ...]
    detect: Detect
    read_files: ReadFiles


@dataclass(frozen=True)
class PublishedRecordings:
    """The recordings of a published dataset, or of several, recognized by their file names.

    `names` shows such a name in messages. `parse_name` raises ClipError for any other name.
    `name_dataset` returns the dataset's name in sgnray, given all clips.
    """

    kind: RecordedFormat
    names: str
    parse_name: Callable[[str], ClipFacts]
    name_dataset: Callable[[Iterable[ClipFacts]], str]

    def has_name(self, name: str) -> bool:
        """Return whether a file has such a name."""
        try:
            return bool(self.parse_name(name))
        except ClipError:
            return False


def _each(read: Callable[[bytes, Skeleton], Recording]) -> ReadFiles:
    """Turn a reader of one file into a reader of many."""

    def read_or_refuse(data: bytes, skeleton: Skeleton) -> Recording | ClipError:
        try:
            return read(data, skeleton)
        except ClipError as error:
            return error

    return lambda files, skeleton: [read_or_refuse(data, skeleton) for data in files]


def _columns(*skeletons: Skeleton) -> Detect:
    return lambda head: joint_csv.detect_columns(head, *skeletons)


UTF16 = "it is UTF-16 text: save it as UTF-8"
NTU = RecordedFormat(
    "NTU RGB+D",
    (".skeleton",),
    ntu.detect_ntu,
    lambda files, _: ntu.read_skeletons(files),
)
_READERS = (  # of one file each
    (nwucla.FORMAT, (".json",), nwucla.detect_nwucla, nwucla.read_nwucla),
    ("AlphaPose", (".json",), openpose.detect_alphapose, openpose.read_openpose),
    (openpose.LIST_FORMAT, (".json",), openpose.detect_list, openpose.read_openpose),
    (openpose.FORMAT, (".json",), openpose.detect_openpose, openpose.read_openpose),
    (keypoints.IMAGE_FORMAT, (".json",), keypoints.detect_image, keypoints.read_keypoints),
    (keypoints.FORMAT, (".json", ".jsonl"), keypoints.detect_keypoints, keypoints.read_keypoints),
    ("Azure Kinect", (".json",), azure.detect_azure, azure.read_azure),
    (kinetics.FORMAT, (".json",), kinetics.detect_kinetics, kinetics.read_kinetics),
    ("MediaPipe", (".csv", ".tsv"), _columns(MEDIAPIPE33), joint_csv.read_joint_csv),
    ("Kinect", (".csv", ".tsv"), _columns(NTU25, KINECT20), joint_csv.read_joint_csv),
    (pyskl.CLIP_FORMAT, pyskl.SUFFIXES, pyskl.detect_clip, pyskl.read_pickled_clip),
)
FORMATS: Mapping[str, RecordedFormat] = {NTU.name: NTU} | {
    name: RecordedFormat(name, suffixes, detect, _each(read))
    for name, suffixes, detect, read in _READERS
}
# By the names that messages show.
PUBLISHED: Mapping[str, PublishedRecordings] = {
    "NTU RGB+D": PublishedRecordings(
        NTU, "SsssCcccPpppRrrrAaaa.skeleton", ntu.parse_ntu_name, ntu.name_ntu
    ),
    "NW-UCLA": PublishedRecordings(
        FORMATS[nwucla.FORMAT],
        "aAA_sSS_eEE_vVV.json",
        nwucla.parse_nwucla_name,
        lambda _: "nwucla",
    ),
}
_EMPTY_OBJECT = re.compile(rb"\s*\{\s*\}\s*")
_SUFFIXES = tuple(  # the longest first: .skl.jsonl is not .jsonl
    sorted({suffix for known in FORMATS.values() for suffix in known.suffixes}, key=len)[::-1]
)


def describe_published() -> str:
    """Name the published datasets and their files, for messages."""
    return ", ".join(f"{known.names} ({title})" for title, known in PUBLISHED.items())


def describe_formats(*, without_published: bool = False) -> str:
    """Name the formats by their suffixes, for messages."""
    left_out = [FORMATS[keypoints.IMAGE_FORMAT]]  # a part of another one
    if without_published:
        left_out += [known.kind for known in PUBLISHED.values()]
    by_suffix: dict[str, list[str]] = {}
    for known in FORMATS.values():
        if known not in left_out:
            by_suffix.setdefault(known.suffixes[0], []).append(known.name)
    return ", ".join(f"{', '.join(names)} ({suffix})" for suffix, names in by_suffix.items())


def has_known_suffix(name: str) -> bool:
    """Return whether a file could be a recording; macOS archives have a "._" twin of each."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def stem_of(name: str) -> str:
    """Return a file's name without the suffix of a recording."""
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def is_utf16(head: bytes) -> bool:
    """Return whether a text begins with the mark of UTF-16."""
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def detect_format(name: str, peek: Callable[[], bytes]) -> tuple[RecordedFormat, Skeleton] | None:
    """Detect a file's format and skeleton by its first bytes, which `peek` reads; ClipError.

    A .skeleton file is not read: NTU RGB+D has 114,000 of them. If the content does not show the
    format, a file name of a published dataset does.
    """
    candidates = [known for known in FORMATS.values() if name.lower().endswith(known.suffixes)]
    if len(candidates) == 1 and candidates[0] is NTU:
        return NTU, NTU25
    head = peek() if candidates else b""
    if is_utf16(head):
        raise refusal(UTF16)
    head = head.removeprefix(codecs.BOM_UTF8)
    for known in candidates:
        if (skeleton := known.detect(head)) is not None:
            return known, skeleton
    for published in PUBLISHED.values():
        if published.kind in candidates and published.has_name(name):
            dataset = published.name_dataset([published.parse_name(name)])
            return published.kind, DATASETS[dataset].skeleton
    if name.lower().endswith(".json") and _EMPTY_OBJECT.fullmatch(head):  # of AlphaPose
        raise refusal("its object is empty: no frame contains a person")
    return None


def detect_content(head: bytes) -> tuple[RecordedFormat, Skeleton] | None:
    """Detect a format by the first HEAD_BYTES alone; NTU's last, as any leading number fits it."""
    head = head.removeprefix(codecs.BOM_UTF8)
    for known in sorted(FORMATS.values(), key=lambda known: known is NTU):
        if (skeleton := known.detect(head)) is not None:
            return known, skeleton
    return None
