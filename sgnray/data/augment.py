"""Linear maps of clips: turned, scaled and sheared about their origin.

Legend: B clips, T frames, V joints, C coordinates: 3, or 2 in the image plane.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shears(leans_BCC: Tensor) -> Tensor:
    """Return matrices (B, C, C) that lean each axis on the others; the diagonals are ignored."""
    eye = torch.eye(leans_BCC.shape[-1], dtype=leans_BCC.dtype, device=leans_BCC.device)
    return eye + leans_BCC * (1 - eye)


def turns(angles_B3: Tensor, num_coordinates: int) -> Tensor:
    """Return the rotations (B, C, C) of clips in space, or in the plane by the third angle."""
    if num_coordinates == 2:
        return _plane_matrices(angles_B3[:, 2])
    return rotation_matrices(angles_B3)


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


def transform(joints_BTVC: Tensor, maps_BCC: Tensor) -> Tensor:
    """Map each clip as a whole; zero poses stay zero."""
    # Coordinates first: a product of long rows costs half of one of many rows of three.
    points_BCP = joints_BTVC.flatten(1, 2).transpose(1, 2).contiguous()
    mapped_BCP = maps_BCC @ points_BCP
    return mapped_BCP.transpose(1, 2).contiguous().view(joints_BTVC.shape)


def _plane_matrices(angles_B: Tensor) -> Tensor:
    """Return the part of Rz (B, 2, 2) that acts on x and y."""
    cos, sin = torch.cos(angles_B), torch.sin(-angles_B)
    rows = torch.stack((cos, -sin), dim=-1), torch.stack((sin, cos), dim=-1)
    return torch.stack(rows, dim=-2)
