"""Skeleton layouts: which joints a pose has, how bones connect them, where its origin is.

Legend of tensor suffixes, used in the whole project: B clips in a batch, N clips of a dataset,
P poses of a dataset, W views per clip, T frames (segments), V joints, C coordinates or channels,
M bodies, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SkeletonLayout:
    """One kind of skeleton.

    `bones` are (child, parent) pairs of 0-based joint indices; `origin` is the joint that
    preparation puts at zero in the first frame.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    origin: int
    num_coordinates: int = 3

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return len(self.joints)


# Joint order of Kinect v2, as NTU RGB+D's files list it.
NTU25 = SkeletonLayout(
    name="ntu25",
    joints=(
        "spine base", "spine middle", "neck", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
        "spine shoulder", "left hand tip", "left thumb", "right hand tip", "right thumb",
    ),
    bones=(
        (1, 0), (20, 1), (2, 20), (3, 2),
        (4, 20), (5, 4), (6, 5), (7, 6), (21, 7), (22, 7),
        (8, 20), (9, 8), (10, 9), (11, 10), (23, 11), (24, 11),
        (12, 0), (13, 12), (14, 13), (15, 14),
        (16, 0), (17, 16), (18, 17), (19, 18),
    ),
    origin=1,
)  # fmt: skip

# Joint order of Kinect v1, as the NW-UCLA recordings list it.
KINECT20 = SkeletonLayout(
    name="kinect20",
    joints=(
        "hip center", "spine", "shoulder center", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
    ),
    bones=(
        (1, 0), (2, 1), (3, 2),
        (4, 2), (5, 4), (6, 5), (7, 6),
        (8, 2), (9, 8), (10, 9), (11, 10),
        (12, 0), (13, 12), (14, 13), (15, 14),
        (16, 0), (17, 16), (18, 17), (19, 18),
    ),
    origin=1,
)  # fmt: skip

LAYOUTS = {layout.name: layout for layout in (NTU25, KINECT20)}
