"""Names of datasets, cases and classes for files of other projects, which lack them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from sgnray.data.datasets import CASE_ALIASES, DATASETS, find_published, read_class_names
from sgnray.data.skeleton import Skeleton
from sgnray.prepare.plan import hash_lines
from sgnray.storage.location import Location

_CASES = {word: names[0] for word, names in CASE_ALIASES.items()}
NO_CASE = "fixed"
_SUFFIXES = (".zip", ".h5", ".hdf5", ".npz", ".pkl", ".pickle")


def name_dataset(location: Location, skeleton: Skeleton, num_classes: int) -> str:
    """Recognize a published dataset by its classes and joints; else use the file's name."""
    return find_published(num_classes, skeleton) or name_after_file(location.name)


def name_after_file(name: str) -> str:
    """Derive a dataset's name from a file's: lower case letters, digits, - and _."""
    name = _make_word(_stem(name), "dataset")
    # A file must not get the name of a published dataset, whose protocols would then apply.
    return f"{name}-file" if name in DATASETS else name


def name_case(dataset: str, word: str) -> str:
    """Return the name of a case in a dataset; an unpublished word is kept."""
    case = _CASES.get(word.lower(), _make_word(word, "case"))
    return "csub" if case == "cs" and dataset == "ntu120" else case


def find_case(dataset: str, location: Location) -> str:
    """Find the case in a file's name, as in NTU60_CS.npz; "fixed" if it names none."""
    words = re.split(r"[^a-z0-9]+", _stem(location.name).lower())
    return next((name_case(dataset, word) for word in words if word in _CASES), NO_CASE)


def name_classes(dataset: str, num_classes: int) -> tuple[str, ...]:
    """Return the published class names, or "class 0" and so on."""
    return read_class_names(dataset) or tuple(f"class {label}" for label in range(num_classes))


def _stem(name: str) -> str:
    path = PurePosixPath(name)  # of a folder, kinect.2023 is the whole name
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _make_word(text: str, kind: str) -> str:
    """Leave out accents and other characters; `kind` and a hash of a text of none but these."""
    text = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(one for one in text if not unicodedata.combining(one))
    word = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")
    return word or f"{kind}-{hash_lines([text])[:4]}"
