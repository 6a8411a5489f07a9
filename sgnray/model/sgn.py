"""SGN: Semantics-Guided Neural Networks for skeleton-based action recognition (arXiv 1904.01189).

Legend: B clips, T frames (segments), V joints, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgnray.model.layers import (
    Affinity,
    CoordinateEmbedding,
    FrameLevelModule,
    GraphLayer,
    SemanticCode,
    init_like_convolution,
)


class SGN(nn.Module):
    """Recognise an action from T poses of V joints; 691,048 parameters at K=60, T=20, V=25.

    Input (B, T, V, C) float, positions in metres; output (B, K) logits.
    """

    def __init__(
        self,
        num_classes: int,
        num_joints: int = 25,
        num_frames: int = 20,
        *,
        num_coordinates: int = 3,
        embedding_width: int = 64,
        affinity_width: int = 256,
        graph_widths: Sequence[int] = (128, 256, 256),
        frame_width: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_joints, self.num_frames = num_classes, num_joints, num_frames
        self.num_coordinates = num_coordinates
        coordinates = {"num_joints": num_joints, "num_coordinates": num_coordinates}
        joint_width, joint_level_width = 2 * embedding_width, graph_widths[-1]

        self.position = CoordinateEmbedding(**coordinates, width=embedding_width)
        self.velocity = CoordinateEmbedding(**coordinates, width=embedding_width)
        self.joint_type = SemanticCode(
            num_items=num_joints, hidden_width=embedding_width, width=embedding_width
        )
        self.affinity = Affinity(in_width=joint_width, width=affinity_width)
        self.graph_layers = nn.ModuleList(
            GraphLayer(in_width=in_width, width=width)
            for in_width, width in zip((joint_width, *graph_widths), graph_widths, strict=False)
        )
        self.frame_index = SemanticCode(
            num_items=num_frames, hidden_width=embedding_width, width=joint_level_width
        )
        self.frame_level = FrameLevelModule(
            in_width=joint_level_width, width=frame_width, dropout=dropout
        )
        self.classifier = nn.Linear(frame_width, num_classes)
        self.reset_weights()

    @torch.no_grad()
    def reset_weights(self) -> None:
        """Draw all weights anew from torch's global generator; biases keep torch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.classifier:
                module.reset_parameters()
                kernel = 3 if module is self.frame_level.temporal else 1
                init_like_convolution(module, kernel=kernel)
        for layer in self.graph_layers:
            assert isinstance(layer, GraphLayer)
            nn.init.zeros_(layer.neighbours.weight)
        self.classifier.reset_parameters()

    def forward(self, joints_BTVC: Tensor) -> Tensor:
        """Return logits (B, K); ValueError for clips of another shape than (T, V, C)."""
        expected = (self.num_frames, self.num_joints, self.num_coordinates)
        if joints_BTVC.shape[1:] != expected:  # a wrong T would broadcast in silence
            raise ValueError(f"clips have shape {tuple(joints_BTVC.shape[1:])}, not {expected}")
        features_BTVC = self._joint_level(joints_BTVC)
        # The frame code is the same for all joints, so it can wait until after their maximum.
        frames_BTC = features_BTVC.amax(dim=2) + self.frame_index()
        logits_BK: Tensor = self.classifier(self.frame_level(frames_BTC))
        return logits_BK

    def _joint_level(self, joints_BTVC: Tensor) -> Tensor:
        """Run the joint-level module: dynamics, joint types, affinity, graph layers."""
        dynamics_BTVC = self.position(joints_BTVC) + self.velocity(velocities(joints_BTVC))
        joint_type_BTVC = self.joint_type().expand(*dynamics_BTVC.shape[:2], -1, -1)
        features_BTVC = torch.cat((dynamics_BTVC, joint_type_BTVC.to(dynamics_BTVC.dtype)), dim=-1)
        affinity_BTVV = self.affinity(features_BTVC)
        for layer in self.graph_layers:
            features_BTVC = layer(features_BTVC, affinity_BTVV)
        return features_BTVC


def velocities(joints_BTVC: Tensor) -> Tensor:
    """Return x[t] - x[t-1], zero in the first frame; taken after sampling."""
    return F.pad(joints_BTVC[:, 1:] - joints_BTVC[:, :-1], (0, 0, 0, 0, 1, 0))


def count_parameters(model: nn.Module) -> int:
    """Count the trained numbers of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
