"""The parts of SGN, in the layout BTVC and as matrix products.

Legend: B clips, T frames (segments), V joints, C channels.
A 1x1 convolution is a linear map of the last axis, so no tensor is ever permuted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CoordinateEmbedding(nn.Module):
    """Embed positions or velocities: batch norm over the V*C coordinates, then two linear + ReLU.

    Input (B, T, V, C), output (B, T, V, width). Paper section 3.1, reference's `embed`.
    """

    def __init__(self, *, num_joints: int, num_coordinates: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_joints * num_coordinates)
        self.inner = nn.Linear(num_coordinates, width)
        self.outer = nn.Linear(width, width)

    def forward(self, coordinates_BTVC: Tensor) -> Tensor:
        """Embed every joint of every frame."""
        shape = coordinates_BTVC.shape
        # Statistics over clips and frames, one pair for each coordinate of each joint.
        normed = self.norm(coordinates_BTVC.reshape(shape[0] * shape[1], -1)).view(shape)
        return F.relu(self.outer(F.relu(self.inner(normed))))


class SemanticCode(nn.Module):
    """Embed which joint, or which frame, it is: one-hot, then two linear + ReLU.

    Output (num_items, width). The one-hots never meet the clips, so the code is computed once a
    step. Paper section 3.1 (joint type) and 3.2 (frame index).
    """

    def __init__(self, *, num_items: int, hidden_width: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(num_items, hidden_width)
        self.outer = nn.Linear(hidden_width, width)

    def forward(self) -> Tensor:
        """Return one row per joint or frame."""
        # A one-hot times a matrix selects a column: the identity times W is W transposed.
        return F.relu(self.outer(F.relu(self.inner.weight.t() + self.inner.bias)))


class Affinity(nn.Module):
    """Weigh all joints of a frame against each other: softmax over j of theta(z_i) . phi(z_j).

    Input (B, T, V, C), output (B, T, V, V) whose rows sum to one. Paper equation 2, no scaling.
    """

    def __init__(self, *, in_width: int, width: int) -> None:
        super().__init__()
        self.theta = nn.Linear(in_width, width)
        self.phi = nn.Linear(in_width, width)

    def forward(self, features_BTVC: Tensor) -> Tensor:
        """Return the affinity matrices."""
        # theta(x) . phi(y) = x'Ay + a'y + (terms without y), and the softmax over y cancels the
        # last: one C x C form replaces two maps to `width`.
        form_CC = self.phi.weight.t() @ self.theta.weight
        # phi's bias cancels, but stays in the graph: DDP wants a gradient for each parameter, and
        # weight decay must reach it as it does in the reference.
        shift_C = self.theta.bias @ self.phi.weight + 0.0 * self.phi.bias.sum()
        queries_BTVC = F.linear(features_BTVC, form_CC, shift_C)
        return torch.softmax(queries_BTVC @ features_BTVC.transpose(-1, -2), dim=-1)


class GraphLayer(nn.Module):
    """Pass messages between joints: ReLU(BN(W(Gx) + W1 x)), W without bias.

    Input (B, T, V, C) and affinity (B, T, V, V), output (B, T, V, width). Paper equation 3.
    """

    def __init__(self, *, in_width: int, width: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(in_width, width, bias=False)
        self.itself = nn.Linear(in_width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, features_BTVC: Tensor, affinity_BTVV: Tensor) -> Tensor:
        """Return the next features of every joint."""
        gathered_BTVC = affinity_BTVV @ features_BTVC
        mixed_BTVC = self.neighbours(gathered_BTVC) + self.itself(features_BTVC)
        return F.relu(norm_channels(self.norm, mixed_BTVC))


class FrameLevelModule(nn.Module):
    """Relate the frames: convolution over time (kernel 3), dropout, 1x1, max over time.

    Input (B, T, C), output (B, width). Paper section 3.2, reference's `local`.
    """

    def __init__(self, *, in_width: int, width: int, dropout: float) -> None:
        super().__init__()
        # The kernel lies flat: [frame before | this frame | frame after].
        self.temporal = nn.Linear(3 * in_width, in_width)
        self.temporal_norm = nn.BatchNorm1d(in_width)
        self.dropout = dropout
        self.pointwise = nn.Linear(in_width, width)
        self.pointwise_norm = nn.BatchNorm1d(width)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        """Return one vector per clip."""
        padded = F.pad(frames_BTC, (0, 0, 1, 1))
        windows = torch.cat((padded[:, :-2], frames_BTC, padded[:, 2:]), dim=-1)
        hidden_BTC = F.relu(norm_channels(self.temporal_norm, self.temporal(windows)))
        if self.training and self.dropout > 0.0:
            # Whole channels of a clip go, over all of its frames (Dropout2d of the reference).
            kept_B1C = F.dropout(torch.ones_like(hidden_BTC[:, :1]), self.dropout)
            hidden_BTC = hidden_BTC * kept_B1C
        hidden_BTC = F.relu(norm_channels(self.pointwise_norm, self.pointwise(hidden_BTC)))
        return hidden_BTC.amax(dim=1)


def norm_channels(norm: nn.BatchNorm1d, features: Tensor) -> Tensor:
    """Batch-normalise the last axis over all others."""
    normed: Tensor = norm(features.reshape(-1, features.shape[-1]))
    return normed.view(features.shape)


def init_like_convolution(linear: nn.Linear, *, kernel: int = 1) -> None:
    """Draw the weights as the reference draws a convolution's: normal, std sqrt(2 / (k * out))."""
    nn.init.normal_(linear.weight, 0.0, math.sqrt(2.0 / (kernel * linear.out_features)))
