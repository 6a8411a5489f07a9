"""Weights as a .safetensors file that describes itself; nothing in it can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sgnray.checkpoints.model_card import KEY, ModelCard
from sgnray.errors import CheckpointError, import_extra

SAFETENSORS_SUFFIX = ".safetensors"


def write_safetensors(path: Path, weights: Mapping[str, Tensor], description: ModelCard) -> None:
    """Write weights and their description."""
    module = import_extra("safetensors.torch", extra="export")
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # "format" is what other readers of such files look at. Its own writer would let nobody else
    # read the file.
    path.write_bytes(module.save(tensors, {"format": "pt", KEY: description.to_json()}))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Read both again, checked by building the model; raises CheckpointError."""
    module = import_extra("safetensors", extra="export")
    try:
        with module.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if KEY not in metadata:
            raise ValueError("it does not describe a model of sgnray")
        description = ModelCard.from_json(metadata[KEY])
        description.build_model(weights)
    except Exception as error:  # what a foreign file provokes has no bounds
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the file cannot be used: {reason}",
            where=str(path),
            now="export it again: sgn export --to safetensors",
        ) from error
    return weights, description
