"""Writer of PYSKL's pickles, clip by clip.

The opcodes of the outer dict and list are written by hand, since pickle itself would need the
whole list in memory. Arrays name numpy.core, which every numpy that PYSKL runs with understands.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from sgnray.data.clip_poses import ClipPoses, FloatArray
from sgnray.data.protocols import Split
from sgnray.data.store import SkeletonDataset
from sgnray.progress import OnProgress

_CASE_WORDS = {"cs": "xsub", "csub": "xsub", "cv": "xview", "cset": "xset"}
_PROTOCOL = 4
_CLIPS_PER_REPORT = 64


def write_pyskl(
    path: Path,
    dataset: SkeletonDataset,
    poses: ClipPoses,
    splits: Mapping[str, Split],
    on_progress: OnProgress | None,
) -> None:
    """Write {"split": ..., "annotations": [...]}; key points are float32, M x T x V x C."""
    names, labels = dataset.clips.names, dataset.clips.labels
    with path.open("wb") as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_DICT + pickle.MARK)
        file.write(_plain("split") + _plain(_name_splits(names, splits)))
        file.write(_plain("annotations") + pickle.EMPTY_LIST + pickle.MARK)
        for clip, (name, label) in enumerate(zip(names, labels, strict=True)):
            num_frames = int(poses.num_frames[clip])
            frames_TMD = poses.lay_out(
                clip, num_frames=num_frames, num_bodies=poses.count_bodies(clip)
            )
            shape = (*frames_TMD.shape[:2], *dataset.poses_PVC.shape[1:])
            facts: dict[str, str | int] = {
                "frame_dir": name,
                "label": int(label),
                "total_frames": num_frames,
            }
            keypoint_MTVC = frames_TMD.reshape(shape).swapaxes(0, 1)
            _write_annotation(file, facts, keypoint_MTVC)
            if on_progress is not None and (clip + 1) % _CLIPS_PER_REPORT == 0:
                on_progress(clip + 1, len(names))
        file.write(pickle.APPENDS + pickle.SETITEMS + pickle.STOP)
    if on_progress is not None:
        on_progress(len(names), len(names))


def _name_splits(names: tuple[str, ...], splits: Mapping[str, Split]) -> dict[str, list[str]]:
    named = {}
    for case, split in splits.items():
        word = _CASE_WORDS.get(case, case)
        named[f"{word}_train"] = [names[clip] for clip in split.train]
        named[f"{word}_val"] = [names[clip] for clip in split.test]
    return named


def _write_annotation(
    file: IO[bytes], facts: Mapping[str, str | int], keypoint_MTVC: FloatArray
) -> None:
    file.write(pickle.EMPTY_DICT + pickle.MARK)
    for key, value in facts.items():
        file.write(_plain(key) + _plain(value))
    file.write(_plain("keypoint"))
    _write_array(file, keypoint_MTVC)
    file.write(pickle.SETITEMS)


def _write_array(file: IO[bytes], array: FloatArray) -> None:
    """Write what numpy's own arrays reduce to: _reconstruct, then its state."""
    kind = _global("numpy", "dtype") + _plain(("f4", False, True)) + pickle.REDUCE
    kind += _plain((3, "<", None, None, None, -1, -1, 0)) + pickle.BUILD
    empty = _global("numpy", "ndarray") + _plain((0,)) + _plain(b"b") + pickle.TUPLE3
    file.write(_global("numpy.core.multiarray", "_reconstruct") + empty + pickle.REDUCE)
    file.write(pickle.MARK + _plain(1) + _plain(array.shape) + kind + _plain(False))
    data = np.ascontiguousarray(array, "<f4").tobytes()
    file.write(pickle.BINBYTES + len(data).to_bytes(4, "little"))
    file.write(data)
    file.write(pickle.TUPLE + pickle.BUILD)


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _plain(value: Any) -> bytes:
    """Give the opcodes of a plain value; protocol 3 has no frames, and may set its memo again."""
    return pickle.dumps(value, protocol=3)[2:-1]
