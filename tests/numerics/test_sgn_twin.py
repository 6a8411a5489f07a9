"""SGN against an obvious twin: the paper's equations, one clip, frame and joint at a time."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sgnray.model.sgn import SGN

NUM_CLASSES, NUM_JOINTS, NUM_FRAMES = 5, 4, 6


def make_model() -> SGN:
    """A small SGN in float64 whose every parameter and statistic is away from its start."""
    generator = torch.Generator().manual_seed(3)
    model = SGN(
        NUM_CLASSES,
        NUM_JOINTS,
        NUM_FRAMES,
        embedding_width=6,
        affinity_width=7,
        graph_widths=(5, 8, 9),
        frame_width=11,
    ).double()
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():
            value.data.copy_(torch.rand(value.shape, generator=generator) - 0.4)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(buffer.abs() + 0.5)
    return model.eval()


def linear(layer, x):
    return layer.weight @ x + (layer.bias if layer.bias is not None else 0)


def norm(layer, x):
    scaled = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
    return scaled * layer.weight + layer.bias


def embed(module, frame_VC):
    normed = norm(module.norm, frame_VC.flatten()).view(NUM_JOINTS, 3)
    return [F.relu(linear(module.outer, F.relu(linear(module.inner, joint)))) for joint in normed]


def code(module, item, num_items):
    one_hot = F.one_hot(torch.tensor(item), num_items).double()
    return F.relu(linear(module.outer, F.relu(linear(module.inner, one_hot))))


def plain_frame(model, position_VC, velocity_VC, frame):
    """Joint-level module of one frame, then the maximum over joints."""
    positions, velocities = embed(model.position, position_VC), embed(model.velocity, velocity_VC)
    z = [
        torch.cat((positions[v] + velocities[v], code(model.joint_type, v, NUM_JOINTS)))
        for v in range(NUM_JOINTS)
    ]
    scores = torch.tensor(
        [[linear(model.affinity.theta, a) @ linear(model.affinity.phi, b) for b in z] for a in z]
    )
    G = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    for layer in model.graph_layers:
        gathered = [sum(G[i, j] * z[j] for j in range(NUM_JOINTS)) for i in range(NUM_JOINTS)]
        z = [
            F.relu(
                norm(layer.norm, linear(layer.neighbours, gathered[v]) + linear(layer.itself, z[v]))
            )
            for v in range(NUM_JOINTS)
        ]
    frame_code = code(model.frame_index, frame, NUM_FRAMES)
    return torch.stack([joint + frame_code for joint in z]).max(dim=0).values


def plain_sgn(model, clip_TVC):
    frames = []
    for t in range(NUM_FRAMES):
        velocity = clip_TVC[t] - clip_TVC[t - 1] if t else torch.zeros_like(clip_TVC[t])
        frames.append(plain_frame(model, clip_TVC[t], velocity, t))
    zero = torch.zeros_like(frames[0])
    padded = [zero, *frames, zero]
    level = model.frame_level
    outputs = []
    for t in range(NUM_FRAMES):
        window = torch.cat(padded[t : t + 3])
        hidden = F.relu(norm(level.temporal_norm, linear(level.temporal, window)))
        outputs.append(F.relu(norm(level.pointwise_norm, linear(level.pointwise, hidden))))
    return linear(model.classifier, torch.stack(outputs).max(dim=0).values)


def test_logits_match_the_equations():
    model = make_model()
    joints = torch.randn(
        3,
        NUM_FRAMES,
        NUM_JOINTS,
        3,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(5),
    )
    with torch.no_grad():
        expected = torch.stack([plain_sgn(model, clip) for clip in joints])
        torch.testing.assert_close(model(joints), expected, atol=1e-11, rtol=0)
