"""The analytic count of FLOPs against those that torch counts as the network runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sgnray.config import ModelConfig
from sgnray.data.skeleton import NTU25
from sgnray.model import SGN
from sgnray.model.flops import STEP_FACTOR, forward_flops

BATCH_SIZE = 16
# Some products are computed once a step and not per clip, and the model may skip others.
TOLERANCE = 0.1


def counted(model, num_coordinates):
    shape = (BATCH_SIZE, model.num_frames, model.num_joints, num_coordinates)
    joints = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(joints)
    with FlopCounterMode(display=False) as step:
        model(joints).sum().backward()
    return forward.get_total_flops() / BATCH_SIZE, step.get_total_flops() / BATCH_SIZE


@pytest.mark.parametrize(
    ("num_classes", "num_joints", "num_frames", "num_coordinates", "changes"),
    [
        (60, 25, 20, 3, {}),
        (10, 20, 20, 3, {}),
        (5, 17, 8, 2, {"graph_widths": (128, 256, 512), "frame_width": 1024}),
        (60, 25, 20, 3, {"joint_type": False}),
        (60, 25, 20, 3, {"frame_index": False}),
        (60, 25, 20, 3, {"affinity": "skeleton"}),
        (60, 25, 20, 3, {"graph_widths": (256,)}),
    ],
)
def test_the_count_is_close_to_that_of_torch(
    num_classes, num_joints, num_frames, num_coordinates, changes
):
    config = ModelConfig(**changes)
    torch.manual_seed(0)
    widths = {key: tuple(value) for key, value in changes.items() if key == "graph_widths"}
    model = SGN(
        num_classes,
        num_joints,
        num_frames,
        num_coordinates=num_coordinates,
        bones=NTU25.bones,
        **{**changes, **widths},
    )
    found = forward_flops(config, model)
    forward, step = counted(model.train(), num_coordinates)
    assert found == pytest.approx(forward, rel=TOLERANCE)
    assert STEP_FACTOR * found == pytest.approx(step, rel=TOLERANCE)


def test_each_input_costs_its_own_embedding_and_nothing_more():
    model, inputs = SGN(60), ("position", "velocity", "bone", "bone_velocity")
    two = forward_flops(ModelConfig(), model)
    four = forward_flops(ModelConfig(inputs=inputs), model)
    assert four - two == 2 * 2 * 20 * 25 * (3 * 64 + 64 * 64)


def test_by_hand_where_every_width_is_one():
    """One frame, one joint, one coordinate, one class: every product is a single multiply-add."""
    config = ModelConfig(
        inputs=("position",),
        embedding_width=1,
        affinity_width=1,
        graph_widths=(1, 1, 1),
        frame_width=1,
    )
    model = SGN(1, 1, 1, num_coordinates=1, **dict(config))
    embedding = 1 + 1
    affinity = 1 * 2 + 2  # the dynamics' half of the form, twice the width wide; then one pair
    graph = (2 + 1) + (1 + 2) + (1 + 2)  # two maps of the dynamics, then gather; gather, two maps
    frame = 3 + 1
    assert forward_flops(config, model) == 2 * (embedding + affinity + graph + frame + 1)
