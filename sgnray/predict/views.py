"""What a model is shown of prepared clips.

Legend: B clips, W views, T frames, V joints, C coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.data.batches import view_draws
from sgnray.data.pose_bank import PoseBank
from sgnray.prepare.clip import Poses


def sample_views(poses: Sequence[Poses], trained_model: TrainedModel, num_views: int) -> Tensor:
    """Sample clips as the model's evaluation does, (B, W, T, V, C) on the CPU.

    All get the same draws, so that what else is recognized with a clip changes nothing.
    """
    model = trained_model.model
    shape = (-1, model.num_joints, model.num_coordinates)
    lengths = torch.tensor([len(clip.bodies) for clip in poses])
    values_PVC = np.concatenate([clip.values_PD for clip in poses]).reshape(shape)
    bank = PoseBank(
        poses_PVC=torch.from_numpy(values_PVC),
        first_pose_N=lengths.cumsum(dim=0) - lengths,
        num_poses_N=lengths,
        labels_N=torch.zeros_like(lengths),
        names=("",) * len(poses),
        device=torch.device("cpu"),
    )
    draws_BWT = view_draws(1, num_views, model.num_frames).expand(len(poses), -1, -1)
    return bank.gather(torch.arange(len(poses)), draws_BWT, windows=trained_model.card.windows)
