"""All poses of a dataset on the device that makes batches, and which of a clip the model sees.

The device is a GPU, or the host with the mapped file.

Legend: B clips in a batch, N clips of the dataset, P poses of the dataset, T segments of a
clip, each of which gives one frame, V joints, C coordinates. Leading axes of draws broadcast.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgnray.config.schema import PoseDevice, Windows
from sgnray.data.protocols import corrected_labels
from sgnray.data.skeleton import Skeleton
from sgnray.data.store import SkeletonDataset
from sgnray.errors import UsageError

log = logging.getLogger(__name__)

PADDING = -1
# The share of a GPU's free memory that poses may take; the rest is for activations.
_LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class PoseBank:
    """The clips of a dataset; batches are made on `pose_device` and delivered to `device`."""

    poses_PVC: Tensor
    first_pose_N: Tensor
    num_poses_N: Tensor
    labels_N: Tensor
    names: tuple[str, ...]
    device: torch.device
    skeleton: Skeleton

    @classmethod
    def of(
        cls,
        dataset: SkeletonDataset,
        device: torch.device,
        *,
        wanted: PoseDevice = "auto",
        use_corrected_labels: bool = False,
    ) -> PoseBank:
        """Wrap the mapping without a copy, or copy all poses to the GPU once.

        `wanted` is auto (the GPU if they fit), host, or device (UsageError if they do not fit).
        """
        labels_N = dataset.clips.labels
        if use_corrected_labels:
            labels_N = corrected_labels(dataset.info.dataset, dataset.clips)
        offsets = torch.from_numpy(np.ascontiguousarray(dataset.offsets))
        poses_PVC = _wrap_readonly(dataset.poses_PVC)
        pose_device = choose_pose_device(poses_PVC.nbytes, device, wanted)
        return cls(
            poses_PVC=poses_PVC.to(pose_device),
            # A last clip without poses would start after the last row; any row will do for it.
            first_pose_N=offsets[:-1].clamp_max(len(poses_PVC) - 1).to(pose_device),
            num_poses_N=offsets.diff().to(pose_device),
            labels_N=torch.from_numpy(labels_N).to(pose_device),
            names=dataset.clips.names,
            device=device,
            skeleton=dataset.skeleton,
        )

    @property
    def pose_device(self) -> torch.device:
        """The device that holds the poses."""
        return self.poses_PVC.device

    def gather(
        self,
        rows_B: Tensor,
        uniform_BT: Tensor,
        *,
        windows: Windows,
        spans_B2: Tensor | None = None,
    ) -> Tensor:
        """Return sampled clips (B, T, V, C), on `pose_device`; zero where there is no pose.

        `uniform_BT` may have more axes before T, which the result has too. `spans_B2` limits each
        clip to a segment, given by start and length as shares of the clip.
        """
        shape = (-1,) + (1,) * (uniform_BT.ndim - 2)
        first, length = self.first_pose_N[rows_B], self.num_poses_N[rows_B]
        if spans_B2 is not None:
            skipped, length = _crop(length, spans_B2)
            first = first + skipped
        index_BT = sample_poses(length.view(shape), uniform_BT, windows)
        flat = (first.view(*shape, 1) + index_BT.clamp_min(0)).flatten()
        joints = self.poses_PVC.index_select(0, flat)
        joints = joints.view(*index_BT.shape, *self.poses_PVC.shape[1:])
        return joints * (index_BT != PADDING)[..., None, None]

    def deliver(self, tensor: Tensor) -> Tensor:
        """Copy a tensor from `pose_device` to `device`, without waiting for the copy."""
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


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
    # The largest float32 below 1 times any width rounds to less than that width.
    offset_BT = (uniform_BT * width_B1).long()
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


def choose_pose_device(num_bytes: int, device: torch.device, wanted: PoseDevice) -> torch.device:
    """Choose the device that holds poses of `num_bytes` for batches on `device`."""
    if device.type == "cpu" or wanted == "host":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has reserved and does not use is free as well, for example after an earlier trial.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if num_bytes <= free * _LARGEST_SHARE:
        return device
    if wanted == "device":
        raise UsageError(
            f"the poses take {num_bytes / 1e9:.1f} GB, and the GPU has {free / 1e9:.1f} GB free",
            where="data.pose_device=device",
            now="use data.pose_device=auto: they stay on the host if they do not fit",
        )
    log.warning(
        "the poses take %.1f GB and stay on the host, so each step is slower", num_bytes / 1e9
    )
    return torch.device("cpu")


def _crop(length_B: Tensor, spans_B2: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many poses to skip and to keep; at least one is kept if the clip has any."""
    start_B, share_B = spans_B2.unbind(-1)
    skipped_B = (start_B * length_B).long()
    end_B = ((start_B + share_B) * length_B).ceil().long().minimum(length_B)
    return skipped_B, end_B - skipped_B


def _wrap_readonly(array: npt.NDArray[np.float32]) -> Tensor:
    with warnings.catch_warnings():
        # torch has no read-only tensors; nothing here writes, and the mapping would refuse it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
