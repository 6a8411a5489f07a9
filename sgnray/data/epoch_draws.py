"""The random numbers of one epoch: tables indexed by clip, and the augmentation they define.

Legend: N clips of the dataset, B of a batch, T frames, V joints, C coordinates: 3, or 2 in the
image plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sgnray import seeding
from sgnray.config import DataConfig
from sgnray.data.skeleton import Skeleton

# Each clip reads its noise from one shared pool, at its own offset: a table for all clips of NTU
# would take 240 MB in every epoch.
_NOISE_POOL = 2**18


@dataclass(frozen=True)
class EpochDraws:
    """The draws of one epoch; None for augmentations that the recipe does not use.

    `spans_N2` has start and length of the segment that is used, as shares of the clip's length;
    `kept_NV` is 0 for joints that are dropped; `shares_N` is a clip's own share if it is mixed.
    """

    poses_NT: Tensor
    maps_NCC: Tensor | None = None
    spans_N2: Tensor | None = None
    noise: Tensor | None = None
    noise_place_N: Tensor | None = None
    kept_NV: Tensor | None = None
    shares_N: Tensor | None = None

    @classmethod
    def draw(
        cls,
        config: DataConfig,
        *,
        seed: int,
        epoch: int,
        num_clips: int,
        skeleton: Skeleton,
    ) -> EpochDraws:
        """Draw for the clips 0 to `num_clips`: a pure function of seed, epoch and clip."""

        def table(purpose: str, *shape: int) -> Tensor:
            return torch.from_numpy(seeding.uniform(seed, purpose, epoch, (num_clips, *shape)))

        maps_NCC = _maps(config, table, skeleton.num_coordinates)
        tables: dict[str, Tensor | None] = {"maps_NCC": maps_NCC}
        if config.crop < 1:
            tables["spans_N2"] = _spans(table("crop", 2), config.crop)
        if config.jitter_m:
            size = _NOISE_POOL + config.num_segments * skeleton.pose_size
            drawn = seeding.normal(seed, "jitter", epoch, (size,))
            tables["noise"] = torch.from_numpy(drawn) * config.jitter_m
            tables["noise_place_N"] = (table("jitter place") * _NOISE_POOL).long()
        if config.joint_dropout:
            kept_NV = table("joint dropout", skeleton.num_joints) >= config.joint_dropout
            tables["kept_NV"] = kept_NV.float()
        if config.mixing:
            drawn = seeding.beta(seed, "mixing", epoch, num_clips, config.mixing)
            tables["shares_N"] = torch.from_numpy(drawn)
        return cls(poses_NT=table("poses", config.num_segments), **tables)

    def to(self, device: torch.device) -> EpochDraws:
        """Return the draws on a device."""
        tables = {name: table for name, table in vars(self).items() if table is not None}
        return replace(self, **{name: table.to(device) for name, table in tables.items()})

    def copy_(self, other: EpochDraws) -> None:
        """Overwrite these tables in place with those of another epoch."""
        for name, table in vars(self).items():
            if table is not None:
                table.copy_(getattr(other, name), non_blocking=True)

    def augment(self, joints_BTVC: Tensor, rows_B: Tensor) -> Tensor:
        """Augment clips: add noise, then shear, scale and rotate, then drop joints.

        Zero poses, which pad short clips, stay zero.
        """
        if self.noise is not None and self.noise_place_N is not None:
            size = joints_BTVC[0].numel()
            place = self.noise_place_N[rows_B].unsqueeze(1)
            index = place + torch.arange(size, device=place.device)
            noise_BTVC = self.noise[index].view(joints_BTVC.shape)
            is_pose_BT11 = joints_BTVC.ne(0).flatten(2).any(dim=2)[:, :, None, None]
            joints_BTVC = joints_BTVC + noise_BTVC * is_pose_BT11
        if self.maps_NCC is not None:
            joints_BTVC = transform(joints_BTVC, self.maps_NCC[rows_B])
        if self.kept_NV is not None:
            joints_BTVC = joints_BTVC * self.kept_NV[rows_B][:, None, :, None]
        return joints_BTVC


def _maps(config: DataConfig, table: Callable[..., Tensor], num_coordinates: int) -> Tensor | None:
    """Return the linear map of each clip: shear first, then scaling and rotation."""
    limits = config.rotation_rad
    limits_3 = torch.tensor(limits if isinstance(limits, tuple) else (limits,) * 3)
    eye_CC = torch.eye(num_coordinates)
    maps_NCC = None
    if limits_3.any():
        maps_NCC = build_rotations((table("rotation", 3) * 2 - 1) * limits_3, num_coordinates)
    if config.scaling:
        scales = (1 + (table("scaling") * 2 - 1) * config.scaling).view(-1, 1, 1)
        maps_NCC = scales * (eye_CC if maps_NCC is None else maps_NCC)
    if config.shear:
        leans_NCC = (table("shear", num_coordinates, num_coordinates) * 2 - 1) * config.shear
        sheared_NCC = eye_CC + leans_NCC * (1 - eye_CC)
        maps_NCC = sheared_NCC if maps_NCC is None else maps_NCC @ sheared_NCC
    return maps_NCC


def build_rotations(angles_N3: Tensor, num_coordinates: int) -> Tensor:
    """Return the rotation matrices (N, C, C); in 2D, only the third angle counts."""
    if num_coordinates == 2:
        angles_N3 = angles_N3 * angles_N3.new_tensor((0, 0, 1))
    return rotation_matrices(angles_N3)[:, :num_coordinates, :num_coordinates]


def rotation_matrices(angles_N3: Tensor) -> Tensor:
    """Return R = Rz Ry Rx (N, 3, 3) for angles in radians about x, y and z, for column vectors.

    Positive angles turn as the reference's do (`_rot`), which is against the right-hand rule.
    """
    cx, cy, cz = torch.cos(angles_N3).unbind(-1)
    sx, sy, sz = torch.sin(-angles_N3).unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _spans(uniform_N2: Tensor, smallest: float) -> Tensor:
    """Return start and length of a segment of each clip, as shares; at least `smallest` long."""
    length_N = smallest + (1 - smallest) * uniform_N2[:, 1]
    return torch.stack((uniform_N2[:, 0] * (1 - length_N), length_N), dim=1)


def transform(joints_BTVC: Tensor, maps_BCC: Tensor) -> Tensor:
    """Map each clip as a whole; zero poses stay zero."""
    # Coordinates first: a product with few long rows takes half the time of many rows of three.
    points_BCP = joints_BTVC.flatten(1, 2).transpose(1, 2).contiguous()
    mapped_BCP = maps_BCC @ points_BCP
    return mapped_BCP.transpose(1, 2).contiguous().view(joints_BTVC.shape)
