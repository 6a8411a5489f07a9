"""SGN: Semantics-Guided Neural Networks for skeleton-based action recognition (arXiv 1904.01189).

Legend: B clips, T frames (segments), V joints, C channels, K classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sgnray.config.schema import AffinityKind
from sgnray.model.inputs import check_inputs, derive_input, needs_bones, parents_of
from sgnray.model.layers import (
    Affinity,
    CoordinateEmbedding,
    FrameLevelModule,
    GraphLayer,
    NoCode,
    SemanticCode,
    SkeletonAffinity,
)

_CLIPS_IN_CACHE = 16


class SGN(nn.Module):
    """Recognize an action from T poses of V joints; 691,048 parameters at K=60, T=20, V=25.

    Input (B, T, V, C) float, positions in meters; output (B, K) logits. `inputs` are those of
    model.inputs.INPUTS that make up the dynamics; `bones` are (child, parent) joints, from 0.
    Without `joint_type` or `frame_index` that semantic code is left out; the affinity is learned
    from the features, or fixed by the skeleton's bones. ValueError for unknown inputs, and if
    bones are needed but there are none.
    """

    parents_V: Tensor

    def __init__(
        self,
        num_classes: int,
        num_joints: int = 25,
        num_frames: int = 20,
        *,
        num_coordinates: int = 3,
        inputs: Sequence[str] = ("position", "velocity"),
        bones: Sequence[tuple[int, int]] = (),
        joint_type: bool = True,
        frame_index: bool = True,
        affinity: AffinityKind = "learned",
        embedding_width: int = 64,
        affinity_width: int = 256,
        graph_widths: Sequence[int] = (128, 256, 256),
        frame_width: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_joints, self.num_frames = num_classes, num_joints, num_frames
        self.num_coordinates = num_coordinates
        self.inputs = check_inputs(inputs, bones)
        # Without bone inputs, there is no buffer that the reference does not have.
        parents_V = parents_of(bones, num_joints) if needs_bones(self.inputs) else None
        self.register_buffer("parents_V", parents_V, persistent=False)
        type_width = embedding_width if joint_type else 0
        joint_width, joint_level_width = embedding_width + type_width, graph_widths[-1]

        for name in self.inputs:
            embedding = CoordinateEmbedding(
                num_joints=num_joints, num_coordinates=num_coordinates, width=embedding_width
            )
            self.add_module(name, embedding)
        self.joint_type = _code(joint_type, num_joints, embedding_width, type_width)
        self.affinity = (
            Affinity(in_width=joint_width, width=affinity_width)
            if affinity == "learned"
            else SkeletonAffinity(num_joints=num_joints, bones=bones)
        )
        self.graph_layers = nn.ModuleList(
            GraphLayer(in_width=in_width, width=width)
            for in_width, width in zip((joint_width, *graph_widths), graph_widths, strict=False)
        )
        self.frame_index = _code(frame_index, num_frames, embedding_width, joint_level_width)
        self.frame_level = FrameLevelModule(
            in_width=joint_level_width, width=frame_width, dropout=dropout
        )
        self.classifier = nn.Linear(frame_width, num_classes)
        self.reset_weights()

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """The shape (T, V, C) of one clip."""
        return self.num_frames, self.num_joints, self.num_coordinates

    @torch.no_grad()
    def reset_weights(self) -> None:
        """Redraw all weights from torch's global generator; biases keep torch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.classifier:
                module.reset_parameters()
                # As the reference initializes its convolutions.
                kernel = 3 if module is self.frame_level.temporal else 1
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (kernel * module.out_features)))
        for layer in self.graph_layers:
            assert isinstance(layer, GraphLayer)
            nn.init.zeros_(layer.neighbours.weight)
        self.classifier.reset_parameters()

    def forward(self, joints_BTVC: Tensor) -> Tensor:
        """Return logits (B, K); ValueError for clips of another shape than (T, V, C)."""
        shape = tuple(joints_BTVC.shape[1:])
        if shape != self.clip_shape:  # a wrong T would broadcast silently
            raise ValueError(f"clips have shape {shape}, not {self.clip_shape}")
        # The frame code is the same for all joints, so it can be added after their maximum.
        frames_BTC = torch.cat([self._joint_level(part) for part in self._parts(joints_BTVC)])
        frames_BTC = frames_BTC + self.frame_index()
        logits_BK: Tensor = self.classifier(self.frame_level(frames_BTC))
        return logits_BK

    def _parts(self, joints_BTVC: Tensor) -> Sequence[Tensor]:
        """Split the clips into chunks that fit into a cache, in evaluation on one CPU thread.

        Training needs statistics of the whole batch; several threads would lose more time by
        waiting for each other than the cache saves.
        """
        is_whole = torch.compiler.is_compiling() or any(part.training for part in self.modules())
        if is_whole or joints_BTVC.device.type != "cpu" or torch.get_num_threads() > 1:
            return (joints_BTVC,)
        return torch.split(joints_BTVC, _CLIPS_IN_CACHE)

    def _joint_level(self, joints_BTVC: Tensor) -> Tensor:
        """Run the joint-level module up to the maximum over joints: (B, T, C)."""
        features_BTVC, code_VC = self._dynamics(joints_BTVC), self.joint_type()
        affinity_BTVV = self.affinity(features_BTVC, code_VC)
        *others, last = cast("Iterable[GraphLayer]", self.graph_layers)
        for layer in others:
            features_BTVC = layer(features_BTVC, affinity_BTVV, code_VC)
            code_VC = None  # it is in the features from the first layer on
        return last.peak(features_BTVC, affinity_BTVV, code_VC)

    def _dynamics(self, joints_BTVC: Tensor) -> Tensor:
        """Embed the inputs and sum them.

        The sum is as wide as one input: another input adds only its own small embedding, and
        nothing to the later layers, which do nearly all of the arithmetic.
        """
        embedded_BTVC = (
            getattr(self, name)(derive_input(name, joints_BTVC, self.parents_V))
            for name in self.inputs
        )
        dynamics_BTVC: Tensor = functools.reduce(torch.add, embedded_BTVC)
        return dynamics_BTVC


def _code(is_there: bool, num_items: int, hidden_width: int, width: int) -> SemanticCode | NoCode:
    if not is_there:
        return NoCode(num_items=num_items, width=width)
    return SemanticCode(num_items=num_items, hidden_width=hidden_width, width=width)


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
