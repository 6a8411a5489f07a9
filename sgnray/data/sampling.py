"""Which poses of a clip the model sees.

Legend: B clips, T segments. Any leading axes (views, for instance) broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgnray.config.schema import Windows

PADDING = -1


def sample_poses(num_poses_B: Tensor, uniform_BT: Tensor, windows: Windows = "paper") -> Tensor:
    """Pick one pose from each of T segments, uniformly.

    `num_poses_B` holds the lengths L, `uniform_BT` numbers in [0, 1); returns int64 pose indices
    (B, T), PADDING where there is no pose.
    """
    pick = _pick_paper if windows == "paper" else _pick_even
    return pick(num_poses_B.unsqueeze(-1), uniform_BT)


def _pick_paper(num_poses_B1: Tensor, uniform_BT: Tensor) -> Tensor:
    """Pick from segments of L // T poses; the rest at the end of the clip is never used.

    A clip shorter than T gives its poses, then padding. The paper's code does the same
    (`Tolist_fix`).
    """
    width_B1 = (num_poses_B1 // uniform_BT.shape[-1]).clamp_min(1)
    # A product just below the width may round up to it, so clamp to the segment's last pose.
    offset_BT = (uniform_BT * width_B1).long().minimum(width_B1 - 1)
    index_BT = _segments(uniform_BT) * width_B1 + offset_BT
    return torch.where(index_BT < num_poses_B1, index_BT, PADDING)


def _pick_even(num_poses_B1: Tensor, uniform_BT: Tensor) -> Tensor:
    """Pick from segments of L / T poses, not rounded; the whole clip is used.

    A clip shorter than T repeats poses; only an empty one gives padding.
    """
    # Compute the fraction first: (i + u) / T has float32's full precision for clips of any length.
    # The divisor is a tensor, because a GPU multiplies by the reciprocal of a plain number, which
    # would pick another pose here and there than a CPU.
    num_segments = uniform_BT.new_full((), uniform_BT.shape[-1])
    place_BT = (_segments(uniform_BT) + uniform_BT) / num_segments
    index_BT = (place_BT * num_poses_B1).long().minimum(num_poses_B1 - 1)
    return torch.where(num_poses_B1 > 0, index_BT, PADDING)


def _segments(uniform_BT: Tensor) -> Tensor:
    return torch.arange(uniform_BT.shape[-1], device=uniform_BT.device)
