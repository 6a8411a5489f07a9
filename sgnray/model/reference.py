"""Convert the reference's state dict, as in its official checkpoints, to this SGN's.

Names and shapes are facts about microsoft/SGN; none of its code is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sgnray.config import ModelConfig
from sgnray.model.sgn import SGN

# Ours on the left, the reference's on the right; both name a module.
_MODULES = {
    "position.norm": "joint_embed.cnn.0.bn",
    "position.inner": "joint_embed.cnn.1.cnn",
    "position.outer": "joint_embed.cnn.3.cnn",
    "velocity.norm": "dif_embed.cnn.0.bn",
    "velocity.inner": "dif_embed.cnn.1.cnn",
    "velocity.outer": "dif_embed.cnn.3.cnn",
    "joint_type.inner": "spa_embed.cnn.0.cnn",
    "joint_type.outer": "spa_embed.cnn.2.cnn",
    "affinity.theta": "compute_g1.g1.cnn",
    "affinity.phi": "compute_g1.g2.cnn",
    "graph_layers.0.neighbours": "gcn1.w.cnn",
    "graph_layers.0.itself": "gcn1.w1.cnn",
    "graph_layers.0.norm": "gcn1.bn",
    "graph_layers.1.neighbours": "gcn2.w.cnn",
    "graph_layers.1.itself": "gcn2.w1.cnn",
    "graph_layers.1.norm": "gcn2.bn",
    "graph_layers.2.neighbours": "gcn3.w.cnn",
    "graph_layers.2.itself": "gcn3.w1.cnn",
    "graph_layers.2.norm": "gcn3.bn",
    "frame_index.inner": "tem_embed.cnn.0.cnn",
    "frame_index.outer": "tem_embed.cnn.2.cnn",
    "frame_level.temporal": "cnn.cnn1",
    "frame_level.temporal_norm": "cnn.bn1",
    "frame_level.pointwise": "cnn.cnn2",
    "frame_level.pointwise_norm": "cnn.bn2",
    "classifier": "fc",
}


def find_reference(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Find the reference's state dict in the content of a file; None if there is none."""
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        return None
    # The official code may have saved a torch.nn.DataParallel.
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    return state if "compute_g1.g1.cnn.weight" in state else None


def reference_keys(model: SGN) -> dict[str, str]:
    """Map each key of our state dict to the reference's, in our order."""
    keys = {}
    for key in model.state_dict():
        module, _, entry = key.rpartition(".")
        keys[key] = f"{_MODULES[module]}.{entry}"
    return keys


def reference_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """Infer the widths of the reference's model from its weights; the rest is the paper's."""
    return ModelConfig(
        embedding_width=state["joint_embed.cnn.1.cnn.weight"].shape[0],
        affinity_width=state["compute_g1.g1.cnn.weight"].shape[0],
        graph_widths=tuple(state[f"gcn{layer}.w1.cnn.weight"].shape[0] for layer in (1, 2, 3)),
        frame_width=state["fc.weight"].shape[1],
    )


def model_from_reference(state: Mapping[str, Tensor]) -> SGN:
    """Build the SGN that the reference's state dict describes and load it, strictly.

    Raises KeyError, IndexError, ValueError or RuntimeError if a key or a shape does not fit.
    """
    model = SGN(
        state["fc.weight"].shape[0],
        num_joints=state["spa_embed.cnn.0.cnn.weight"].shape[1],
        num_frames=state["tem_embed.cnn.0.cnn.weight"].shape[1],
        num_coordinates=state["joint_embed.cnn.1.cnn.weight"].shape[1],
        **dict(reference_config(state)),
    )
    keys = reference_keys(model)
    unknown = set(state) - set(keys.values())
    if unknown:
        raise KeyError(f"unknown entries: {', '.join(sorted(unknown))}")
    model.load_state_dict({ours: from_reference(ours, state[keys[ours]], model) for ours in keys})
    return model


def from_reference(key: str, value: Tensor, model: SGN) -> Tensor:
    """Convert one entry of the reference to our layout; gradients are converted the same way."""
    if key.startswith(("position.norm", "velocity.norm")) and value.ndim == 1:
        # Channels c * V + v of the reference are v * C + c in the layout BTVC.
        return value.view(model.num_coordinates, model.num_joints).t().reshape(-1)
    if key == "frame_level.temporal.weight":
        # (out, in, 1, kernel) -> (out, kernel * in): the kernel is flattened frame by frame.
        return value.squeeze(2).permute(0, 2, 1).flatten(1)
    if value.ndim == 4:
        return value.flatten(1)
    return value
