"""Writer of PYSKL's pickles, clip by clip.

The opcodes of the outer dict and list are written by hand, since pickle itself would need the
whole list in memory. Arrays refer to numpy.core, which every numpy that PYSKL runs with has.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgnray.data.datasets import CASE_WORDS
from sgnray.data.progress import OnProgress, Progress
from sgnray.data.protocols import Split
from sgnray.data.store import FloatArray, SkeletonDataset

_WORDS = {case: word for word, cases in CASE_WORDS.items() for case in cases}
_PROTOCOL = 4


def write_pyskl(
    path: Path, dataset: SkeletonDataset, splits: Mapping[str, Split], on_progress: OnProgress
) -> None:
    """Write {"split": ..., "annotations": [...]}; key points are float32, M x T x V x C."""
    clips = dataset.clips
    progress = Progress(on_progress, len(clips.names))
    with path.open("wb") as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_DICT + pickle.MARK)
        file.write(_pickled("split") + _pickled(_name_splits(clips.names, splits)))
        file.write(_pickled("annotations") + pickle.EMPTY_LIST + pickle.MARK)
        for clip, name in enumerate(clips.names):
            num_frames = int(clips.num_frames[clip])
            file.write(pickle.EMPTY_DICT + pickle.MARK)
            file.write(_pickled("frame_dir") + _pickled(name))
            file.write(_pickled("label") + _pickled(int(clips.labels[clip])))
            file.write(_pickled("total_frames") + _pickled(num_frames))
            keypoints_MTVC = dataset.arrange(clip, num_frames=num_frames).swapaxes(0, 1)
            file.write(_pickled("keypoint") + _pickled_array(keypoints_MTVC))
            file.write(pickle.SETITEMS)
            progress.add(1)
        file.write(pickle.APPENDS + pickle.SETITEMS + pickle.STOP)


def _name_splits(names: tuple[str, ...], splits: Mapping[str, Split]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for case, split in splits.items():
        word = _WORDS.get(case, case)
        if word in splits or f"{word}_train" in named:  # of another case
            word = case
        named[f"{word}_train"] = [names[clip] for clip in split.train]
        named[f"{word}_val"] = [names[clip] for clip in split.test]
    return named


def _pickled_array(array: FloatArray) -> bytes:
    """Return the opcodes of an array; numpy 2 would name numpy._core, which numpy 1 lacks."""
    return _pickled(np.ascontiguousarray(array, "<f4")).replace(b"numpy._core.", b"numpy.core.", 1)


def _pickled(value: Any) -> bytes:
    """Return the opcodes of a value; protocol 3 has no frames, and may reuse memo indices."""
    return pickle.dumps(value, protocol=3)[2:-1]
