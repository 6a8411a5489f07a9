"""Write a recording as NTU RGB+D text: per frame its bodies, per body 25 lines of 12 columns.

Suffixes: T frames, V joints, C coordinates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import NTU25
from sgnray.synth.body import Floats, joints_ending
from sgnray.synth.sensor import BodyTrack, SensorRecording

Bytes = npt.NDArray[np.uint8]

# Kinect v2: focal lengths and picture centers in pixels, of the depth and of the color camera.
_DEPTH_CAMERA = (365.5, 256.0, 212.0)
_COLOR_CAMERA = (1060.0, 960.0, 540.0)

# Kinect v2 gives no orientation for the ends of the skeleton.
_ENDS = joints_ending("head", "tip", "thumb", "foot")


def format_recording(recording: SensorRecording, *, newline: str = "\n") -> bytes:
    """Format a whole .skeleton file, meters to the micrometer and pixels to a thousandth."""
    seen: list[list[tuple[int, bytes]]] = [[] for _ in range(recording.num_frames)]
    for index, track in enumerate(recording.tracks):
        for frame, text in zip(track.frames.tolist(), _format_bodies(track), strict=True):
            seen[frame].append((index, text))
    count = len(recording.tracks)
    parts = [b"%d\n" % recording.num_frames]
    for bodies, first in zip(seen, recording.first.tolist(), strict=True):
        in_turn = sorted((index - first) % count for index, _ in bodies)
        texts = dict(bodies)
        parts.append(b"%d\n" % len(bodies))
        parts.extend(texts[(turn + first) % count] for turn in in_turn)
    return b"".join(parts).replace(b"\n", newline.encode())


def _format_bodies(track: BodyTrack) -> list[bytes]:
    """Format each frame of a body: a header, the number of joints, and a line for each joint."""
    num_frames = len(track.frames)
    text = _format_joints(track).reshape(num_frames, -1)
    is_written = text > 0
    ends = np.cumsum(np.count_nonzero(is_written, axis=1)).tolist()
    joints = text[is_written].tobytes()
    # Id, clipped edges, left and right hand with confidence, restricted, lean, tracking state.
    header = b"%d 0 1 0 1 0 0 %%.6f %%.6f 2\n%d\n" % (track.body_id, NTU25.num_joints)
    starts = [0, *ends[:-1]]
    return [
        header % (lean_x, lean_y) + joints[start:end]
        for (lean_x, lean_y), start, end in zip(
            _lean(track.joints_TVC).tolist(), starts, ends, strict=True
        )
    ]


def _format_joints(track: BodyTrack) -> Bytes:
    """Format the twelve columns of every joint into (T, V, width) characters; 0 means none."""
    joints_TVC = track.joints_TVC
    pixels = [_project(joints_TVC, camera) for camera in (_DEPTH_CAMERA, _COLOR_CAMERA)]
    orientation = _format_numbers(_quaternions(track.turned_TVCC), num_whole=1, num_decimals=6)
    orientation[:, _ENDS] = 0
    orientation[:, _ENDS, :, -2:] = np.frombuffer(b"0 ", dtype=np.uint8)
    state = np.full((*track.states_TV.shape, 2), ord("\n"), dtype=np.uint8)
    state[..., 0] = ord("0") + track.states_TV
    columns = [
        _format_numbers(joints_TVC, num_whole=2, num_decimals=6),
        _format_numbers(np.concatenate(pixels, axis=-1), num_whole=4, num_decimals=3),
        orientation,
        state,
    ]
    return np.concatenate([part.reshape(*state.shape[:2], -1) for part in columns], axis=-1)


def _format_numbers(values: Floats, *, num_whole: int, num_decimals: int) -> Bytes:
    """Format numbers of any shape into (..., width) characters, a space at the end; 0 means none.

    Digit by digit over whole arrays, which is several times as fast as a template.
    """
    rest = np.rint(np.abs(values) * 10.0**num_decimals).astype(np.uint32)
    assert rest.size == 0 or rest.max() < 10 ** (num_whole + num_decimals)
    text = np.zeros((*values.shape, num_whole + num_decimals + 3), dtype=np.uint8)
    text[..., 0] = np.where((values < 0) & (rest > 0), ord("-"), 0)
    point = num_whole + 1
    text[..., point], text[..., -1] = ord("."), ord(" ")
    for slot in range(point + num_decimals, 0, -1):
        if slot == point:
            continue
        whole = rest // 10
        digit = (rest - 10 * whole + ord("0")).astype(np.uint8)
        # Leading zeros are not written, except the one before the point.
        text[..., slot] = digit if slot >= point - 1 else np.where(rest > 0, digit, 0)
        rest = whole
    return text


def _lean(joints_TVC: Floats) -> Floats:
    """Estimate how far the trunk leans to the right and to the front, from -1 to 1."""
    trunk_TC = joints_TVC[:, 20] - joints_TVC[:, 0]
    return np.clip(trunk_TC[:, (0, 2)] * (1.0, -1.0) / 0.5, -1.0, 1.0)


def _project(joints_TVC: Floats, camera: tuple[float, float, float]) -> Floats:
    focal, center_x, center_y = camera
    pixels = focal * joints_TVC[..., :2] / joints_TVC[..., 2:]
    return pixels * (1.0, -1.0) + (center_x, center_y)


def _quaternions(turned_TVCC: Floats) -> Floats:
    """Turn rotation matrices into unit quaternions w, x, y, z with w >= 0."""
    axes, after, last = (0, 1, 2), (1, 2, 0), (2, 0, 1)
    diagonal = turned_TVCC[..., axes, axes]
    signs = np.array([(1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)])
    sizes: Floats = 0.5 * np.sqrt(np.maximum(1.0 + diagonal @ signs.T, 0.0))
    turns = turned_TVCC[..., last, after] - turned_TVCC[..., after, last]
    sizes[..., 1:] = np.copysign(sizes[..., 1:], turns)
    return sizes
