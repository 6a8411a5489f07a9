"""SGN written as the reference is: 1x1 convolutions over BCVT, one-hots through the network.

It is what the model is compared with, in its numbers (test_sgn_twin.py) and in its speed
(tests/bench/test_step.py). Legend: B clips, C channels, V joints, T frames.
"""

from __future__ import annotations

import torch
from torch import nn

from sgnray.model.inputs import INPUTS
from sgnray.model.sgn import SGN


class Embed(nn.Module):
    def __init__(self, num_joints, num_coordinates, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(num_coordinates * num_joints)
        self.inner = nn.Conv2d(num_coordinates, width, 1)
        self.outer = nn.Conv2d(width, width, 1)
        self.relu = nn.ReLU()

    def forward(self, x_BCVT):
        x_BCVT = self.norm(x_BCVT.flatten(1, 2)).view(x_BCVT.shape)
        return self.relu(self.outer(self.relu(self.inner(x_BCVT))))


class Code(nn.Module):
    def __init__(self, num_items, hidden_width, width):
        super().__init__()
        self.inner = nn.Conv2d(num_items, hidden_width, 1)
        self.outer = nn.Conv2d(hidden_width, width, 1)
        self.relu = nn.ReLU()

    def forward(self, one_hots_BCVT):
        return self.relu(self.outer(self.relu(self.inner(one_hots_BCVT))))


class Affinity(nn.Module):
    def __init__(self, in_width, width):
        super().__init__()
        self.theta = nn.Conv2d(in_width, width, 1)
        self.phi = nn.Conv2d(in_width, width, 1)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x_BCVT):
        theta_BTVC = self.theta(x_BCVT).permute(0, 3, 2, 1).contiguous()
        phi_BTCV = self.phi(x_BCVT).permute(0, 3, 1, 2).contiguous()
        return self.softmax(theta_BTVC @ phi_BTCV)


class Graph(nn.Module):
    def __init__(self, in_width, width):
        super().__init__()
        self.neighbours = nn.Conv2d(in_width, width, 1, bias=False)
        self.itself = nn.Conv2d(in_width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x_BCVT, affinity_BTVV):
        gathered_BTVC = affinity_BTVV @ x_BCVT.permute(0, 3, 2, 1).contiguous()
        gathered_BCVT = gathered_BTVC.permute(0, 3, 2, 1).contiguous()
        return self.relu(self.norm(self.neighbours(gathered_BCVT) + self.itself(x_BCVT)))


class FixedAffinity(nn.Module):
    """Each joint receives the mean of itself and the joints one bone away."""

    def __init__(self, num_joints, bones):
        super().__init__()
        self.heard = [
            {joint}
            | {child for child, parent in bones if parent == joint}
            | {parent for child, parent in bones if child == joint}
            for joint in range(num_joints)
        ]

    def forward(self, x_BCVT):
        weights = [
            [1 / len(heard) if other in heard else 0.0 for other in range(len(self.heard))]
            for heard in self.heard
        ]
        return x_BCVT.new_tensor(weights).repeat(len(x_BCVT), x_BCVT.shape[-1], 1, 1)


class FrameLevel(nn.Module):
    def __init__(self, in_width, width, num_frames, dropout):
        super().__init__()
        self.max_over_joints = nn.AdaptiveMaxPool2d((1, num_frames))
        self.temporal = nn.Conv2d(in_width, in_width, (1, 3), padding=(0, 1))
        self.temporal_norm = nn.BatchNorm2d(in_width)
        self.dropout = nn.Dropout2d(dropout)
        self.pointwise = nn.Conv2d(in_width, width, 1)
        self.pointwise_norm = nn.BatchNorm2d(width)
        self.max_over_frames = nn.AdaptiveMaxPool2d((1, 1))
        self.relu = nn.ReLU()

    def forward(self, x_BCVT):
        x_BCVT = self.temporal_norm(self.temporal(self.max_over_joints(x_BCVT)))
        x_BCVT = self.pointwise_norm(self.pointwise(self.dropout(self.relu(x_BCVT))))
        return self.max_over_frames(self.relu(x_BCVT)).flatten(1)


class Twin(nn.Module):
    """The twin of an SGN, with its weights; input and output are the SGN's."""

    def __init__(self, model: SGN, bones=(), dropout=0.2):
        super().__init__()
        self.bones, self.inputs = bones, [name for name in INPUTS if hasattr(model, name)]
        num_joints, num_frames = model.num_joints, model.num_frames
        width = getattr(model, self.inputs[0]).outer.out_features
        for name in self.inputs:
            self.add_module(name, Embed(num_joints, model.num_coordinates, width))
        self.has_joint_type = hasattr(model.joint_type, "outer")
        self.has_frame_index = hasattr(model.frame_index, "outer")
        first_width = 2 * width if self.has_joint_type else width
        if self.has_joint_type:
            self.joint_type = Code(num_joints, width, width)
        self.affinity = FixedAffinity(num_joints, bones)
        if hasattr(model.affinity, "theta"):
            self.affinity = Affinity(first_width, model.affinity.theta.out_features)
        widths = [first_width, *(layer.itself.out_features for layer in model.graph_layers)]
        self.graph_layers = nn.ModuleList(map(Graph, widths[:-1], widths[1:]))
        if self.has_frame_index:
            self.frame_index = Code(num_frames, width, widths[-1])
        frame_width = model.classifier.in_features
        self.frame_level = FrameLevel(widths[-1], frame_width, num_frames, dropout)
        self.classifier = nn.Linear(frame_width, model.num_classes)
        joints, frames = torch.eye(num_joints), torch.eye(num_frames)
        self.register_buffer("joints_1VVT", joints[None, :, :, None].repeat(1, 1, 1, num_frames))
        self.register_buffer("frames_1TVT", frames[None, :, None].repeat(1, 1, num_joints, 1))
        self.to(model.classifier.weight)
        self.load_state_dict(self.lay_out(model.state_dict()), strict=False)

    def lay_out(self, state):
        """Rearrange tensors of an SGN (weights, gradients) like the twin's."""
        shapes = {key: value.shape for key, value in self.state_dict().items()}
        return {key: lay_out(key, value, shapes[key]) for key, value in state.items()}

    def derive(self, x_BCVT):
        inputs = {"position": x_BCVT, "bone": torch.zeros_like(x_BCVT)}
        for child, parent in self.bones:
            inputs["bone"][:, :, child] = x_BCVT[:, :, child] - x_BCVT[:, :, parent]
        for name, of in (("velocity", "position"), ("bone_velocity", "bone")):
            steps = inputs[of][..., 1:] - inputs[of][..., :-1]
            inputs[name] = torch.cat((torch.zeros_like(x_BCVT[..., :1]), steps), dim=-1)
        return inputs

    def forward(self, joints_BTVC):
        x_BCVT = joints_BTVC.permute(0, 3, 2, 1).contiguous()
        inputs, num_clips = self.derive(x_BCVT), len(x_BCVT)
        x_BCVT = sum(getattr(self, name)(inputs[name]) for name in self.inputs)
        if self.has_joint_type:
            joint_type = self.joint_type(self.joints_1VVT.repeat(num_clips, 1, 1, 1))
            x_BCVT = torch.cat((x_BCVT, joint_type), dim=1)
        affinity_BTVV = self.affinity(x_BCVT)
        for layer in self.graph_layers:
            x_BCVT = layer(x_BCVT, affinity_BTVV)
        if self.has_frame_index:
            x_BCVT = x_BCVT + self.frame_index(self.frames_1TVT.repeat(num_clips, 1, 1, 1))
        return self.classifier(self.frame_level(x_BCVT))


def lay_out(key, value, shape):
    if key == "frame_level.temporal.weight":
        return value.unflatten(1, (3, -1)).transpose(1, 2).reshape(shape)
    if key.split(".")[0] in INPUTS and ".norm." in key and value.ndim == 1:
        num_coordinates = 3
        return value.view(-1, num_coordinates).t().reshape(shape)
    return value.reshape(shape)
