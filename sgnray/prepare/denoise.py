"""Which tracked bodies are people: the reference's denoising rules, bit for bit.

Sums and variances are numpy's float32 reductions over the reference's own shapes, because their
order decides the last bit, and the last bit can decide the order of two actors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.store import FloatArray
from sgnray.prepare.clip import Body, refusal

SHORTEST_GHOST = 11  # bodies of at most this many frames are ghosts
WIDE_RATIO = 0.8  # a frame is wide if its x-spread exceeds this share of its y-spread
WIDE_SHARE = 0.69754  # a body this often wide is furniture


def keep_actors(bodies: tuple[Body, ...]) -> list[Body]:
    """Drop ghosts and furniture; sort the remaining bodies by motion, most motion first.

    For recordings with more than one body id. ClipError if every body is too short.
    """
    kept = [body for body in bodies if body.num_frames > SHORTEST_GHOST]
    if not kept:
        raise refusal(f"no body is longer than {SHORTEST_GHOST} frames")
    if len(kept) == 1:
        return kept
    motions: list[np.float32] = []
    actors: list[Body] = []
    num_left = len(kept)
    for body in kept:
        motion = measure_motion(body.joints_TVC)
        is_wide = find_wide_frames(body.joints_TVC)
        num_wide = int(is_wide.sum())
        # The last body left is kept, however wide it is.
        if num_left > 1 and num_wide > 0:
            if num_wide / body.num_frames >= WIDE_SHARE:
                num_left -= 1
                continue
            motion = min(motion, measure_motion(body.joints_TVC[~is_wide]))
        motions.append(motion)
        actors.append(body)
    order = sorted(range(len(actors)), key=lambda index: motions[index], reverse=True)
    return [actors[index] for index in order]


def measure_motion(joints_TVC: FloatArray) -> np.float32:
    """Return the variance over all joints and frames, summed over coordinates, in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        motion: np.float32 = np.sum(np.var(joints_TVC.reshape(-1, joints_TVC.shape[-1]), axis=0))
    return motion


def find_wide_frames(joints_TVC: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark the frames whose x-spread exceeds WIDE_RATIO of their y-spread, in float32."""
    x_TV, y_TV = joints_TVC[:, :, 0], joints_TVC[:, :, 1]
    with np.errstate(over="ignore"):
        x_spread = x_TV.max(axis=1) - x_TV.min(axis=1)
        y_spread = y_TV.max(axis=1) - y_TV.min(axis=1)
        is_wide: npt.NDArray[np.bool_] = x_spread > np.float32(WIDE_RATIO) * y_spread
    return is_wide
