"""The inputs that SGN derives from a clip, and those that it refuses."""

from __future__ import annotations

import pytest
import torch

from sgnray.data.skeleton import KINECT20, NTU25
from sgnray.model.inputs import INPUTS, derive_input, parents_of
from sgnray.model.sgn import SGN, count_parameters

BONES = ((1, 0), (2, 1), (2, 0))


def test_a_bone_is_the_joint_minus_its_first_parent():
    joints = torch.arange(18.0).view(1, 2, 3, 3) ** 2
    parents = parents_of(BONES, 3)
    bones = derive_input("bone", joints, parents)
    assert not bones[:, :, 0].any()
    assert torch.equal(bones[:, :, 1], joints[:, :, 1] - joints[:, :, 0])
    assert torch.equal(bones[:, :, 2], joints[:, :, 2] - joints[:, :, 1])
    steps = derive_input("bone_velocity", joints, parents)
    assert not steps[:, 0].any()
    assert torch.equal(steps[:, 1], bones[:, 1] - bones[:, 0])


@pytest.mark.parametrize(
    ("inputs", "bones", "message"),
    [
        ((), BONES, "different ones"),
        (("position", "nonsense"), BONES, "nonsense"),
        (("position", "position"), BONES, "different ones"),
        (("position", "bone"), (), "no bones"),
        (("bone_velocity",), (), "no bones"),
    ],
)
def test_other_inputs_are_refused(inputs, bones, message):
    with pytest.raises(ValueError, match=message):
        SGN(5, 3, 4, inputs=inputs, bones=bones)


def test_the_order_of_input_names_does_not_change_the_model():
    states = []
    for inputs in (INPUTS, INPUTS[::-1]):
        torch.manual_seed(0)
        states.append(SGN(5, inputs=inputs, bones=NTU25.bones).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_all_inputs_stay_small():
    model = SGN(10, KINECT20.num_joints, inputs=INPUTS, bones=KINECT20.bones)
    assert count_parameters(model) <= 750_000
    assert "parents_V" not in model.state_dict()
