"""Weights and their model card in a .safetensors file, which cannot contain code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sgnray.checkpoints.model_card import KEY, ModelCard, reading
from sgnray.errors import import_extra
from sgnray.model.sgn import SGN

SAFETENSORS_SUFFIX = ".safetensors"


def write_safetensors(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights and the model card."""
    module = import_extra("safetensors.torch", extra="export")
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # Other readers check "format". safetensors' save_file would write a file that only its owner
    # can read.
    path.write_bytes(module.save(tensors, {"format": "pt", KEY: card.to_json()}))


def read_safetensors(path: Path) -> tuple[SGN, ModelCard]:
    """Read a file that `sgn export` wrote, with the model in eval mode; raises CheckpointError."""
    module = import_extra("safetensors", extra="export")
    with reading(
        "the file cannot be used", path, now="export it again: sgn export --to safetensors"
    ):
        with module.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = ModelCard.from_json(metadata.get(KEY))
        return card.build_model(weights), card
