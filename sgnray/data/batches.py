"""Batches drawn from a dataset: a gather, a mask and a rotation over whole blocks.

Legend: B clips in a batch, N clips of the dataset, P poses of the dataset, W views, T frames,
V joints, C coordinates.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgnray import seeding
from sgnray.data.augment import rotate
from sgnray.data.sampling import PADDING, sample_poses
from sgnray.data.store import SkeletonDataset
from sgnray.world import World

ClipRows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoseBank:
    """The poses of a dataset where batches are made from them: on the host's mapping, or a GPU."""

    poses_PVC: Tensor
    first_pose_N: Tensor
    num_poses_N: Tensor
    labels_N: Tensor

    @classmethod
    def of(cls, dataset: SkeletonDataset, device: torch.device) -> PoseBank:
        """Wrap the mapping without a copy; on a GPU the whole matrix moves there once."""
        offsets = torch.from_numpy(np.ascontiguousarray(dataset.offsets))
        return cls(
            poses_PVC=_wrap_readonly(dataset.poses_PVC).to(device),
            first_pose_N=offsets[:-1].to(device),
            num_poses_N=offsets.diff().to(device),
            labels_N=torch.from_numpy(dataset.clips.labels).to(device),
        )

    @property
    def device(self) -> torch.device:
        """Where the poses live and batches appear."""
        return self.poses_PVC.device

    def gather(self, rows_B: Tensor, uniform_BWT: Tensor) -> Tensor:
        """Return sampled clips (B, W, T, V, C); poses beyond a clip's end are zero."""
        index_BWT = sample_poses(self.num_poses_N[rows_B].unsqueeze(-1), uniform_BWT)
        seen_BWT = index_BWT != PADDING
        flat = (self.first_pose_N[rows_B].view(-1, 1, 1) + index_BWT.clamp_min(0)).flatten()
        shape = (*index_BWT.shape, *self.poses_PVC.shape[1:])
        joints_BWTVC = self.poses_PVC.index_select(0, flat).view(shape)
        return joints_BWTVC * seen_BWT[..., None, None]


@dataclass(frozen=True)
class Batch:
    """This rank's slice of one global batch of `global_size` clips."""

    joints_BTVC: Tensor
    labels_B: Tensor
    global_size: int


@dataclass(frozen=True)
class TrainBatches:
    """The training batches of any epoch, as a pure function of (seed, epoch, clip).

    `batch_size` is global: rank r takes its slice of each global batch. The last partial batch is
    dropped, unless it is the only one.
    """

    bank: PoseBank
    rows: ClipRows
    seed: int
    batch_size: int
    num_segments: int
    rotation_rad: float
    world: World = field(default_factory=World)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return max(1, len(self.rows) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch, in order."""
        device = self.bank.device
        num_clips = int(self.rows.max()) + 1
        order = self.rows[seeding.permutation(self.seed, "order", epoch, len(self.rows))]
        order_N = torch.from_numpy(order).to(device)
        poses_NT = self._table("poses", epoch, (num_clips, self.num_segments))
        angles_N3 = (self._table("rotation", epoch, (num_clips, 3)) * 2 - 1) * self.rotation_rad
        for start in range(0, self.num_batches * self.batch_size, self.batch_size):
            whole = order_N[start : start + self.batch_size]
            rows_B = whole[self.world.slice_of(len(whole))]
            joints_BTVC = self.bank.gather(rows_B, poses_NT[rows_B].unsqueeze(1)).squeeze(1)
            yield Batch(
                joints_BTVC=rotate(joints_BTVC, angles_N3[rows_B]),
                labels_B=self.bank.labels_N[rows_B],
                global_size=len(whole),
            )

    def _table(self, purpose: str, epoch: int, shape: tuple[int, int]) -> Tensor:
        return torch.from_numpy(seeding.uniform(self.seed, purpose, epoch, shape)).to(
            self.bank.device
        )


def view_draws(num_clips: int, num_views: int, num_segments: int) -> Tensor:
    """Return the fixed draws of evaluation (N, W, T): the same for every run that is compared."""
    views = [
        seeding.uniform(0, "evaluation view", view, (num_clips, num_segments))
        for view in range(num_views)
    ]
    return torch.from_numpy(np.stack(views, axis=1))


def _wrap_readonly(array: npt.NDArray[np.float32]) -> Tensor:
    with warnings.catch_warnings():
        # torch has no read-only tensors; nothing here writes, and the mapping would refuse it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
