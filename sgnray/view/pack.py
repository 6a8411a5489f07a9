"""Scenes as plain data small enough for a page: coordinates as whole numbers, in base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.view.scene import FRAMES_PER_S, Scene

# Where a joint is not there, and the largest coordinate that can be told.
_ABSENT, _FARTHEST = -32768, 32767
_PER_METRE = 1000


def pack_scene(scene: Scene, *, max_frames: int | None = None) -> dict[str, Any]:
    """Return a scene as JSON can hold it; of more than `max_frames`, every n-th frame.

    Coordinates are in millimeters, up to 32.767 m; those of skeletons that live in a wider space,
    such as a picture with its pixels, in parts of it: only proportions are shown.
    """
    per_unit = _choose_scale(scene)
    step = 1 if max_frames is None else max(1, -(-scene.num_frames // max_frames))
    panels = [
        {
            "title": panel.title,
            "tracks": [
                {"role": track.role, "data": _encode(track.joints_TVC[::step], per_unit)}
                for track in panel.tracks
            ],
        }
        for panel in scene.panels
    ]
    return {
        "title": scene.title,
        "joints": list(scene.skeleton.joints),
        "bones": [list(bone) for bone in scene.skeleton.bones],
        "num_coordinates": scene.skeleton.num_coordinates,
        "num_frames": len(range(0, scene.num_frames, step)),
        "fps": FRAMES_PER_S / step,
        "panels": panels,
    }


def _choose_scale(scene: Scene) -> float:
    """Take millimeters unless half of all coordinates would be too large for them."""
    tracks = [track.joints_TVC for panel in scene.panels for track in panel.tracks]
    known = np.abs(np.concatenate([track[np.isfinite(track)] for track in tracks]))
    if known.size == 0 or np.median(known) * _PER_METRE <= _FARTHEST:
        return _PER_METRE
    return _FARTHEST / float(known.max())


def _encode(joints_TVC: npt.NDArray[np.float32], per_unit: float) -> str:
    """Write int16, little-endian."""
    is_there = np.isfinite(joints_TVC)
    known = np.where(is_there, joints_TVC, 0).astype(np.float64) * per_unit
    near = np.clip(np.rint(known), -_FARTHEST, _FARTHEST)
    packed = np.where(is_there, near, _ABSENT).astype("<i2")
    return base64.b64encode(packed.tobytes()).decode("ascii")
