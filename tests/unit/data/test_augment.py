from __future__ import annotations

import torch

from sgnray.data.augment import rotate, rotation_matrices


def test_matrices_are_rotations():
    angles = 6 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() - 3
    matrices = rotation_matrices(angles)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), eye)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))


def test_each_joint_is_turned_as_a_column_vector():
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(2, 3, 4, 3, generator=generator)
    angles = torch.randn(2, 3, generator=generator)
    turned = rotate(joints, angles)
    torch.testing.assert_close(turned[1, 2, 3], rotation_matrices(angles)[1] @ joints[1, 2, 3])
    assert not rotate(torch.zeros_like(joints), angles).any()
