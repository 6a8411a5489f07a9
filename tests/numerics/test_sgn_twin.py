"""SGN against its twin, which is written as the reference is: logits, gradients, statistics."""

from __future__ import annotations

import pytest
import torch

from sgnray.model.inputs import INPUTS
from sgnray.model.sgn import SGN

from .sgn_twin import Twin

NUM_CLASSES, NUM_JOINTS, NUM_FRAMES = 5, 4, 6
BONES = ((1, 0), (3, 1))  # joints 0 and 2 have no parent
WIDTHS = {"embedding_width": 6, "affinity_width": 7, "graph_widths": (5, 8, 9), "frame_width": 11}


VARIANTS = {
    "paper": {},
    "all inputs": {"inputs": INPUTS},
    "one input": {"inputs": ("bone_velocity",)},
    "no joint type": {"joint_type": False},
    "no frame index": {"frame_index": False},
    "no code at all": {"joint_type": False, "frame_index": False},
    "fixed affinity": {"affinity": "skeleton"},
    "fixed affinity, no joint type": {"affinity": "skeleton", "joint_type": False},
    "one graph layer": {"graph_widths": (8,)},
    "two graph layers": {"graph_widths": (5, 9)},
    "one graph layer, no joint type": {"graph_widths": (8,), "joint_type": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def model(request) -> SGN:
    """A small SGN in float64 whose every parameter and statistic is away from its start."""
    generator = torch.Generator().manual_seed(3)
    sizes = (NUM_CLASSES, NUM_JOINTS, NUM_FRAMES)
    changes = {**WIDTHS, **request.param}
    model = SGN(*sizes, bones=BONES, dropout=0.0, **changes).double()
    for value in model.state_dict(keep_vars=True).values():
        if value.is_floating_point():
            value.data.copy_(torch.rand(value.shape, generator=generator) - 0.4)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(buffer.abs() + 0.5)
    return model


@pytest.fixture
def joints() -> torch.Tensor:
    shape = (3, NUM_FRAMES, NUM_JOINTS, 3)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("training", [False, True])
def test_logits_gradients_and_statistics_match(model, joints, training):
    twin = Twin(model, bones=BONES, dropout=0.0).train(training)
    goal = torch.randn(3, NUM_CLASSES, dtype=torch.float64)
    outputs = []
    for candidate in (model.train(training), twin):
        logits = candidate(joints)
        (logits * goal).sum().backward()
        outputs.append(logits)
    torch.testing.assert_close(*outputs, atol=1e-11, rtol=0)
    assert all(value.grad is not None for value in model.parameters())  # DDP needs them all
    gradients = twin.lay_out({name: value.grad for name, value in model.named_parameters()})
    statistics = twin.lay_out(model.state_dict())
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-10, rtol=0, msg=name)
    for name, buffer in twin.named_buffers():
        if ".norm." in name or "_norm." in name:
            torch.testing.assert_close(statistics[name], buffer, atol=1e-11, rtol=0, msg=name)
