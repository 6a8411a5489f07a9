"""Batches drawn from a dataset: a gather, a mask and a linear map over whole blocks.

Legend: B clips in a batch, N clips of the dataset, P poses of the dataset, W views, T frames,
V joints, C coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sgnray import seeding
from sgnray.config import DataConfig
from sgnray.config.schema import Windows
from sgnray.data.epoch_draws import EpochDraws, build_rotations, transform
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import IntArray
from sgnray.distributed.world import World


@dataclass(frozen=True)
class Batch:
    """This rank's slice of one global batch of `global_size` clips.

    If clips are mixed, a share `shares_B` of each has `labels_B`, the rest `other_labels_B`.
    """

    joints_BTVC: Tensor
    labels_B: Tensor
    global_size: int
    other_labels_B: Tensor | None = None
    shares_B: Tensor | None = None

    @property
    def main_labels(self) -> Tensor:
        """The label of the larger share of each clip."""
        if self.other_labels_B is None or self.shares_B is None:
            return self.labels_B
        return torch.where(self.shares_B >= 0.5, self.labels_B, self.other_labels_B)


@dataclass(frozen=True)
class BatchRows:
    """The clips of a rank's slice, and the clips that they may be mixed with."""

    clips_B: Tensor
    partners_B: Tensor
    global_size: int


@dataclass(frozen=True)
class TrainBatches:
    """The training batches of any epoch, as a pure function of (seed, epoch, clip).

    `batch_size` is global: rank r takes its slice of each global batch. The last partial batch is
    dropped, unless it is the only one.
    """

    bank: PoseBank
    rows: IntArray
    config: DataConfig
    seed: int
    batch_size: int
    world: World = field(default_factory=World)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return max(1, len(self.rows) // self.batch_size)

    @property
    def num_clips(self) -> int:
        """Number of clips that an epoch shows, on all ranks together."""
        return min(len(self.rows), self.num_batches * self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch, in order."""
        draws = self.draws(epoch)
        for rows in self.slices(epoch):
            yield self.batch(draws, rows)

    def draws(self, epoch: int) -> EpochDraws:
        """Draw the random numbers of one epoch, on the device that holds the poses."""
        return EpochDraws.draw(
            self.config,
            seed=self.seed,
            epoch=epoch,
            num_clips=int(self.rows.max()) + 1,
            skeleton=self.bank.skeleton,
        ).to(self.bank.pose_device)

    def slices(self, epoch: int) -> Iterator[BatchRows]:
        """Yield the clips of this rank's batches; all slices of an epoch have the same size."""
        order_N = torch.from_numpy(self.order(epoch)).to(self.bank.pose_device)
        for start in range(0, self.num_batches * self.batch_size, self.batch_size):
            whole = order_N[start : start + self.batch_size]
            share = self.world.slice_of(len(whole))
            # Partners come from the whole batch, so that the pairs do not depend on the world size.
            yield BatchRows(whole[share], whole.roll(1)[share], len(whole))

    def order(self, epoch: int) -> IntArray:
        """Return all training clips in the order of one epoch, on the host."""
        return self.rows[seeding.permutation(self.seed, "order", epoch, len(self.rows))]

    def clip_names(self, epoch: int, step: int) -> list[str]:
        """Name the clips of one global batch."""
        start = step * self.batch_size
        rows = self.order(epoch)[start : start + self.batch_size]
        return [self.bank.names[row] for row in rows]

    def batch(self, draws: EpochDraws, rows: BatchRows) -> Batch:
        """Make one batch without waiting for a GPU."""
        deliver = self.bank.deliver
        joints_BTVC = self._view(draws, rows.clips_B)
        labels_B = deliver(self.bank.labels_N[rows.clips_B])
        if draws.shares_N is None:
            return Batch(deliver(joints_BTVC), labels_B, rows.global_size)
        shares_B = draws.shares_N[rows.clips_B]
        partners_BTVC = self._view(draws, rows.partners_B)
        mixed_BTVC = partners_BTVC.lerp(joints_BTVC, shares_B.view(-1, 1, 1, 1))
        return Batch(
            joints_BTVC=deliver(mixed_BTVC),
            labels_B=labels_B,
            global_size=rows.global_size,
            other_labels_B=deliver(self.bank.labels_N[rows.partners_B]),
            shares_B=deliver(shares_B),
        )

    def _view(self, draws: EpochDraws, rows_B: Tensor) -> Tensor:
        spans_B2 = None if draws.spans_N2 is None else draws.spans_N2[rows_B]
        joints_BTVC = self.bank.gather(
            rows_B, draws.poses_NT[rows_B], windows=self.config.windows, spans_B2=spans_B2
        )
        return draws.augment(joints_BTVC, rows_B)


@functools.lru_cache(maxsize=2)  # the validation's and the test's
def view_draws(num_clips: int, num_views: int, num_segments: int) -> Tensor:
    """Return the fixed draws of evaluation (N, W, T): the same for every run that is compared.

    They are kept for the next call, so nothing may write to them.
    """
    views = [
        seeding.uniform(0, "evaluation view", view, (num_clips, num_segments))
        for view in range(num_views)
    ]
    return torch.from_numpy(np.stack(views, axis=1))


def gather_views(
    bank: PoseBank, rows_B: Tensor, draws_BWT: Tensor, *, windows: Windows, turn_rad: float
) -> Tensor:
    """Return the views of clips as evaluation sees them (B, W, T, V, C), on the poses' device.

    The views turn about the vertical axis by 0, `turn_rad` and -`turn_rad`, over and over.
    """
    joints_BWTVC = bank.gather(rows_B, draws_BWT, windows=windows)
    num_clips, num_views, *shape_TVC = joints_BWTVC.shape
    if not turn_rad:
        return joints_BWTVC
    angles_W3 = torch.zeros(num_views, 3, device=joints_BWTVC.device)
    angles_W3[1::3, 1], angles_W3[2::3, 1] = turn_rad, -turn_rad
    turns_WCC = build_rotations(angles_W3, shape_TVC[-1])
    turned = transform(joints_BWTVC.flatten(0, 1), turns_WCC.repeat(num_clips, 1, 1))
    return turned.view(joints_BWTVC.shape)
