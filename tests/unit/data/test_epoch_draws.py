"""Augmentation of an epoch: each setting against its definition, and how draws depend on clips."""

from __future__ import annotations

import math

import pytest
import torch

from sgnray.config import DataConfig
from sgnray.data.epoch_draws import EpochDraws, build_rotations, rotation_matrices, transform
from sgnray.data.skeleton import Skeleton

from ...augmentations import AUGMENTATIONS

SKELETONS = {
    num_coordinates: Skeleton(
        "stick", ("head", "left hand", "right hand", "left foot", "right foot"),
        ((1, 0), (2, 0), (3, 0), (4, 0)), 0, num_coordinates,
    )
    for num_coordinates in (2, 3)
}  # fmt: skip
ROWS = torch.arange(40)


def draw(*, epoch=0, num_clips=40, num_coordinates=3, **knobs) -> EpochDraws:
    config = DataConfig(**{"num_segments": 6, "rotation_rad": 0.0} | knobs)
    return EpochDraws.draw(
        config,
        seed=7,
        epoch=epoch,
        num_clips=num_clips,
        skeleton=SKELETONS[num_coordinates],
    )


@pytest.fixture
def joints() -> torch.Tensor:
    return torch.randn(40, 6, 5, 3, generator=torch.Generator().manual_seed(0))


def test_no_augmentation_returns_the_clips_unchanged(joints):
    assert draw().augment(joints, ROWS) is joints


@pytest.mark.parametrize("key", AUGMENTATIONS)
def test_each_augmentation_is_drawn_if_it_is_on(key):
    def drawn(**knobs):
        return {name for name, table in vars(draw(**knobs)).items() if table is not None}

    assert drawn() == {"poses_NT"}
    assert drawn(**{key: AUGMENTATIONS[key]}) > {"poses_NT"}


@pytest.mark.parametrize("key", AUGMENTATIONS)
def test_zero_poses_of_padding_stay_zero(joints, key):
    joints[:, 4:] = 0.0
    assert not draw(**{key: AUGMENTATIONS[key]}).augment(joints, ROWS)[:, 4:].any()


def test_a_clips_draws_depend_on_nothing_but_the_clip(joints):
    few, many = draw(num_clips=12, **AUGMENTATIONS), draw(num_clips=40, **AUGMENTATIONS)
    rows = torch.tensor([3, 11])
    torch.testing.assert_close(few.augment(joints[rows], rows), many.augment(joints[rows], rows))
    torch.testing.assert_close(
        few.augment(joints[rows], rows), many.augment(joints, ROWS)[rows], atol=1e-6, rtol=0
    )
    assert torch.equal(few.spans_N2, many.spans_N2[:12])
    assert torch.equal(few.shares_N, many.shares_N[:12])


def test_epochs_repeat_and_differ(joints):
    first, again, other = (draw(epoch=e, **AUGMENTATIONS).augment(joints, ROWS) for e in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_axis_turns_within_its_own_limit():
    up = torch.tensor([0.0, 1.0, 0.0]).expand(40, 6, 5, 3)
    about_y = draw(rotation_rad=[0.0, 1.2, 0.0])
    torch.testing.assert_close(about_y.augment(up.clone(), ROWS), up)  # the axis stays
    east = torch.tensor([1.0, 0.0, 0.0]).expand(40, 6, 5, 3)
    turned = about_y.augment(east.clone(), ROWS)
    angles = torch.atan2(turned[:, 0, 0, 2], turned[:, 0, 0, 0]).abs()
    assert 0.9 < angles.max() <= 1.2 + 1e-6


def test_scaling_grows_and_shrinks_within_its_share(joints):
    grown = draw(scaling=0.15).augment(joints, ROWS)
    factors = (grown / joints).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))  # one for each clip
    assert 0.85 <= factors.min() < 0.9
    assert 1.1 < factors.max() <= 1.15


def test_shear_moves_points_along_the_other_axes_only():
    east = torch.tensor([1.0, 0.0, 0.0]).expand(40, 6, 5, 3)
    sheared = draw(shear=0.2).augment(east.clone(), ROWS)
    assert (sheared[..., 0] == 1).all()
    assert 0.15 < sheared[..., 1:].abs().max() <= 0.2


def test_the_maps_act_in_order(joints):
    """Shear, then scale, then turn, whichever of them are asked for."""
    knobs = {"rotation_rad": 0.5, "scaling": 0.1, "shear": 0.2}
    alone = [draw(**{knob: value}).maps_NCC for knob, value in knobs.items()]
    together = draw(**knobs).maps_NCC
    torch.testing.assert_close(together, alone[0] @ alone[1] @ alone[2])


def test_jitter_has_its_size_and_leaves_padding_alone(joints):
    joints[:, 4:] = 0.0
    noisy = draw(jitter_m=0.02).augment(joints, ROWS)
    noise = (noisy - joints)[:, :4]
    assert noise.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(noise.mean().item()) < 1e-3
    assert not noisy[:, 4:].any()
    per_clip = noise.flatten(1)
    correlation = torch.corrcoef(per_clip) - torch.eye(40)
    assert correlation.abs().max() < 0.6  # no two clips have the same noise


def test_missing_joints_are_missing_in_all_poses_of_a_clip(joints):
    shown = draw(joint_dropout=0.3).augment(joints, ROWS)
    is_gone = (shown == 0).all(dim=(1, 3))
    assert torch.equal(shown == 0, is_gone[:, None, :, None].expand_as(shown))
    assert is_gone.float().mean().item() == pytest.approx(0.3, abs=0.1)


def test_a_crop_is_long_enough_and_inside():
    start, length = draw(crop=0.6).spans_N2.unbind(1)
    assert (start >= 0).all()
    assert (start + length <= 1 + 1e-6).all()
    assert 0.6 <= length.min() < 0.7
    assert length.max() > 0.9


def test_clips_in_2d_rotate_by_the_third_angle():
    flat = draw(num_coordinates=2, rotation_rad=[9.0, 9.0, 0.5], scaling=0.1, shear=0.1)
    assert flat.maps_NCC.shape == (40, 2, 2)
    alone = draw(num_coordinates=2, rotation_rad=[9.0, 9.0, 0.5]).maps_NCC
    angle = torch.atan2(alone[:, 1, 0], alone[:, 0, 0]).abs().max()
    assert 0.3 < angle <= 0.5 + 1e-6
    assert math.isclose(torch.linalg.det(alone).mean().item(), 1.0, rel_tol=1e-5)


def test_draws_of_another_epoch_can_be_copied_in_place():
    tables, other = draw(epoch=0, **AUGMENTATIONS), draw(epoch=1, **AUGMENTATIONS)
    place = tables.poses_NT.data_ptr()
    tables.copy_(other)
    assert tables.poses_NT.data_ptr() == place
    for name, table in vars(other).items():
        assert torch.equal(getattr(tables, name), table), name


def test_matrices_are_rotations():
    angles = 6 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() - 3
    matrices = rotation_matrices(angles)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), eye)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))


def test_clips_in_2d_rotate_about_z_like_clips_in_3d():
    generator = torch.Generator().manual_seed(0)
    joints_BTVC = torch.randn(5, 3, 4, 2, generator=generator).double()
    angles = torch.randn(5, 3, generator=generator).double()
    in_space = torch.nn.functional.pad(joints_BTVC, (0, 1))
    about_z = angles * torch.tensor([0, 0, 1])
    turned = transform(joints_BTVC, build_rotations(angles, 2))
    in_space = transform(in_space, build_rotations(about_z, 3))
    torch.testing.assert_close(turned, in_space[..., :2])
    assert not torch.allclose(turned, joints_BTVC)


def test_each_joint_is_turned_as_a_column_vector():
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(2, 3, 4, 3, generator=generator)
    angles = torch.randn(2, 3, generator=generator)
    turned = transform(joints, build_rotations(angles, 3))
    torch.testing.assert_close(turned[1, 2, 3], rotation_matrices(angles)[1] @ joints[1, 2, 3])
    assert not transform(torch.zeros_like(joints), build_rotations(angles, 3)).any()
