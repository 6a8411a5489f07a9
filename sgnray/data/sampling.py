"""Which poses of a clip the model sees.

Legend: B clips, T segments. Any leading axes (views, for instance) broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = -1


def sample_poses(num_poses_B: Tensor, uniform_BT: Tensor) -> Tensor:
    """Pick one pose from each of T windows of length L // T, uniformly.

    `num_poses_B` holds the lengths L, `uniform_BT` numbers in [0, 1); returns int64 pose indices
    (B, T), PADDING where a clip shorter than T has no more poses. The tail that does not fill
    T equal windows is never seen: so does the paper's sampling (reference's `Tolist_fix`).
    """
    num_segments = uniform_BT.shape[-1]
    num_poses_B1 = num_poses_B.unsqueeze(-1)
    width_B1 = (num_poses_B1 // num_segments).clamp_min(1)
    # A product just below the width may round up to it: the last pose of the window is the limit.
    offset_BT = (uniform_BT * width_B1).long().minimum(width_B1 - 1)
    index_BT = torch.arange(num_segments, device=uniform_BT.device) * width_B1 + offset_BT
    return torch.where(index_BT < num_poses_B1, index_BT, PADDING)
