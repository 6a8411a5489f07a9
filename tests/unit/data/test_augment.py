from __future__ import annotations

import torch

from sgnray.data.epoch_draws import build_rotations, rotation_matrices, transform


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
