"""The parts of SGN, in the layout BTVC and as matrix products.

Legend: B clips, T frames (segments), V joints, C channels.
A 1x1 convolution is a linear map of the last axis, so no tensor is ever permuted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgnray.model.norms import fold, norm_relu, peak_norm_relu, precise, signs


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
        normed = self.norm(coordinates_BTVC.flatten(2).flatten(0, 1)).view(shape)
        return F.relu(self.outer(F.relu(self.inner(normed))))


class SemanticCode(nn.Module):
    """Embed the index of a joint or a frame: one-hot, then two linear + ReLU.

    Output (num_items, width). The code does not depend on the clips, so it is computed once per
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


class NoCode(nn.Module):
    """Replaces a semantic code that is left out: zeros (num_items, width); width may be 0."""

    zeros: Tensor

    def __init__(self, *, num_items: int, width: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(num_items, width), persistent=False)

    def forward(self) -> Tensor:
        """Return the zeros."""
        return self.zeros


class Affinity(nn.Module):
    """Weigh all joints of a frame against each other: softmax over j of theta(z_i) . phi(z_j).

    z is [features | code], features (B, T, V, C) and the joint's code (V, C); output (B, T, V, V)
    whose rows sum to one. Paper equation 2, no scaling.
    """

    def __init__(self, *, in_width: int, width: int) -> None:
        super().__init__()
        self.theta = nn.Linear(in_width, width)
        self.phi = nn.Linear(in_width, width)

    def forward(self, features_BTVC: Tensor, code_VC: Tensor) -> Tensor:
        """Return the affinity matrices."""
        # theta(x) . phi(y) = x'Ay + a'y + (terms without y), and the softmax over y cancels the
        # last: one C x C form replaces two maps to `width`.
        form_CC = self.phi.weight.t() @ self.theta.weight
        # phi's bias cancels, but stays in the graph: DDP needs a gradient for each parameter, and
        # weight decay must reach it as it does in the reference.
        shift_C = self.theta.bias @ self.phi.weight + 0.0 * self.phi.bias.sum()
        queries = linear_with_code(features_BTVC, code_VC, form_CC, shift_C)
        of_features, of_code = split_code(queries, code_VC)
        scores_BTVV = of_features @ features_BTVC.transpose(-1, -2) + of_code @ code_VC.t()
        # In bf16 the softmax is slower than in float32, and the same after rounding.
        affinity_BTVV = torch.softmax(scores_BTVV, dim=-1, dtype=precise(scores_BTVV))
        return affinity_BTVV.to(scores_BTVV.dtype)


class SkeletonAffinity(nn.Module):
    """Weigh each joint and its neighbors in the skeleton equally in all frames, without learning.

    Same input as Affinity; output (B, T, V, V) whose rows sum to one. ValueError without bones.
    """

    joined_VV: Tensor

    def __init__(self, *, num_joints: int, bones: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        if not bones:
            raise ValueError("the affinity is the skeleton's, but the skeleton has no bones")
        joined_VV = torch.eye(num_joints)
        for child, parent in bones:
            joined_VV[child, parent] = joined_VV[parent, child] = 1.0
        self.register_buffer("joined_VV", joined_VV, persistent=False)

    def forward(self, features_BTVC: Tensor, code_VC: Tensor) -> Tensor:
        """Return the affinity matrices, which are all the same."""
        affinity_VV = self.joined_VV / self.joined_VV.sum(dim=1, keepdim=True)
        return affinity_VV.to(features_BTVC.dtype).expand(*features_BTVC.shape[:2], -1, -1)


class GraphLayer(nn.Module):
    """Pass messages between joints: ReLU(BN(W(Gx) + W1 x)), W without bias.

    Input (B, T, V, C) and affinity (B, T, V, V), output (B, T, V, width). Paper equation 3. With a
    `code_VC`, x is [features | code].
    """

    def __init__(self, *, in_width: int, width: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(in_width, width, bias=False)
        self.itself = nn.Linear(in_width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(
        self, features_BTVC: Tensor, affinity_BTVV: Tensor, code_VC: Tensor | None = None
    ) -> Tensor:
        """Return the next features of every joint."""
        bias_C = self.itself.bias
        if self.norm.training:
            mixed_BTVC = self._mix(features_BTVC, affinity_BTVV, code_VC, bias_C=bias_C)
            return norm_relu(self.norm, mixed_BTVC)
        scale_C, shift_C = fold(self.norm, bias_C)
        return F.relu_(self._mix(features_BTVC, affinity_BTVV, code_VC, scale_C, shift_C))

    def peak(
        self, features_BTVC: Tensor, affinity_BTVV: Tensor, code_VC: Tensor | None = None
    ) -> Tensor:
        """Return the maximum over the joints of the next features, (B, T, width)."""
        if not self.norm.training:
            scale_C, shift_C = fold(self.norm, self.itself.bias)
            mixed_BTVC = self._mix(features_BTVC, affinity_BTVV, code_VC, scale_C=scale_C)
            return F.relu(mixed_BTVC.amax(dim=2) + shift_C)
        if isinstance(self.norm, nn.SyncBatchNorm):  # its statistics are over all workers
            next_BTVC: Tensor = self(features_BTVC, affinity_BTVV, code_VC)
            return next_BTVC.amax(dim=2)
        signed_BTVC = self._mix(features_BTVC, affinity_BTVV, code_VC, scale_C=signs(self.norm))
        return peak_norm_relu(self.norm, signed_BTVC, self.itself.bias)

    def _mix(
        self,
        features_BTVC: Tensor,
        affinity_BTVV: Tensor,
        code_VC: Tensor | None = None,
        scale_C: Tensor | None = None,
        bias_C: Tensor | None = None,
    ) -> Tensor:
        """Return scale * (W(Gx) + W1 x) + bias."""
        neighbours, itself = self.neighbours.weight, self.itself.weight
        if scale_C is not None:
            neighbours, itself = neighbours * scale_C[:, None], itself * scale_C[:, None]
        if code_VC is not None:  # G(Wx) equals W(Gx), and applies W to the code only once
            sent_BTVC = linear_with_code(features_BTVC, code_VC, neighbours)
            return affinity_BTVV @ sent_BTVC + linear_with_code(
                features_BTVC, code_VC, itself, bias_C
            )
        gathered_BTVC = affinity_BTVV @ features_BTVC
        # Flattened, because autograd would copy a view before adding to it in place.
        mixed = F.linear(gathered_BTVC.flatten(0, 2), neighbours)
        mixed += F.linear(features_BTVC.flatten(0, 2), itself, bias_C)
        return mixed.view(*features_BTVC.shape[:3], len(neighbours))


class FrameLevelModule(nn.Module):
    """Relate the frames: convolution over time (kernel 3), dropout, 1x1, max over time.

    Input (B, T, C), output (B, width). Paper section 3.2, reference's `local`.
    """

    def __init__(self, *, in_width: int, width: int, dropout: float) -> None:
        super().__init__()
        # The kernel is flattened: [frame before | this frame | frame after].
        self.temporal = nn.Linear(3 * in_width, in_width)
        self.temporal_norm = nn.BatchNorm1d(in_width)
        self.dropout = nn.Dropout(dropout)
        self.pointwise = nn.Linear(in_width, width)
        self.pointwise_norm = nn.BatchNorm1d(width)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        """Return one vector per clip."""
        padded = F.pad(frames_BTC, (0, 0, 1, 1))
        windows = torch.cat((padded[:, :-2], frames_BTC, padded[:, 2:]), dim=-1)
        hidden_BTC = norm_relu(self.temporal_norm, self.temporal(windows))
        if self.dropout.training and self.dropout.p > 0.0:
            # Drop whole channels of a clip over all of its frames (the reference's Dropout2d).
            hidden_BTC = hidden_BTC * self.dropout(torch.ones_like(hidden_BTC[:, :1]))
        hidden_BTC = norm_relu(self.pointwise_norm, self.pointwise(hidden_BTC))
        return hidden_BTC.amax(dim=1)


def linear_with_code(
    features_BTVC: Tensor, code_VC: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Map [features | code] linearly: the code is the same in all frames, and mapped once."""
    of_features, of_code = split_code(weight, code_VC)
    return F.linear(features_BTVC, of_features) + F.linear(code_VC, of_code, bias)


def split_code(columns: Tensor, code_VC: Tensor) -> tuple[Tensor, Tensor]:
    """Split the last axis into the parts of the features and of the code."""
    width = columns.shape[-1] - code_VC.shape[-1]
    return columns[..., :width], columns[..., width:]
