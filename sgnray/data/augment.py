"""Random views of a clip in training.

Legend: B clips, T frames, V joints, C = 3 coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrices(angles_B3: Tensor) -> Tensor:
    """Return R = Rz Ry Rx (B, 3, 3) for angles in radians about x, y and z, for column vectors.

    Positive angles turn as the reference's do (`_rot`), which is against the right-hand rule.
    """
    cx, cy, cz = torch.cos(angles_B3).unbind(-1)
    sx, sy, sz = torch.sin(-angles_B3).unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotate(joints_BTVC: Tensor, angles_B3: Tensor) -> Tensor:
    """Turn each clip as a whole about its origin; zero poses stay zero."""
    turned = joints_BTVC.flatten(1, 2) @ rotation_matrices(angles_B3).transpose(-1, -2)
    return turned.view(joints_BTVC.shape)
