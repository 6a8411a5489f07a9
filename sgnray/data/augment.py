"""Random views of a clip in training.

Legend: B clips, T frames, V joints, C coordinates: 3, or 2 in the image plane.
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
    """Turn each clip as a whole about its origin; zero poses stay zero.

    Clips of 2 coordinates turn in their plane, by the third angle.
    """
    is_flat = joints_BTVC.shape[-1] == 2
    matrices = _plane_matrices(angles_B3[:, 2]) if is_flat else rotation_matrices(angles_B3)
    turned = joints_BTVC.flatten(1, 2) @ matrices.transpose(-1, -2)
    return turned.view(joints_BTVC.shape)


def _plane_matrices(angles_B: Tensor) -> Tensor:
    """Return the part of Rz (B, 2, 2) that acts on x and y."""
    cos, sin = torch.cos(angles_B), torch.sin(-angles_B)
    rows = torch.stack((cos, -sin), dim=-1), torch.stack((sin, cos), dim=-1)
    return torch.stack(rows, dim=-2)
