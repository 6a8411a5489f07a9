"""The files that `sgn export` writes, and how those that can be used as models are read.

Each has the model card; those that are read contain no code. The help of `sgn` is built from this
table, so torch and numpy are imported in functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sgnray.errors import import_extra

if TYPE_CHECKING:
    from torch import Tensor

    from sgnray.checkpoints.model_card import ModelCard
    from sgnray.checkpoints.onnx_model import OnnxModel
    from sgnray.model.sgn import SGN

    ReadModel = Callable[[Path], tuple[SGN | OnnxModel, ModelCard]]
    WriteWeights = Callable[[Path, Mapping[str, Tensor], ModelCard], None]


@dataclass(frozen=True)
class ModelFormat:
    """One format of exported models.

    `read` loads a file like a checkpoint, with the model in eval mode, or raises CheckpointError;
    None if that is not supported. `write_weights` writes a format that holds the weights, so that
    `read` returns an SGN; a model of any other can only predict.
    """

    title: str
    suffix: str
    read: ReadModel | None = None
    write_weights: WriteWeights | None = None

    @property
    def has_weights(self) -> bool:
        """Whether a file can be used like a checkpoint."""
        return self.write_weights is not None


def write_safetensors(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights and the model card."""
    from sgnray.checkpoints.model_card import KEY

    module = import_extra("safetensors.torch", extra="export")
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # Other readers check "format". safetensors' save_file would write a file that only its owner
    # can read.
    path.write_bytes(module.save(tensors, {"format": "pt", KEY: card.to_json()}))


def read_safetensors(path: Path) -> tuple[SGN, ModelCard]:
    """Read a file that `sgn export` wrote, with the model in eval mode; raises CheckpointError."""
    from sgnray.checkpoints.model_card import KEY, ModelCard, reading

    module = import_extra("safetensors", extra="export")
    with reading(
        "the file cannot be used", path, now="export it again: sgn export --to safetensors"
    ):
        with module.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = ModelCard.from_json(metadata.get(KEY))
        return card.build_model(weights), card


def _read_onnx(path: Path) -> tuple[OnnxModel, ModelCard]:
    from sgnray.checkpoints.onnx_model import read_onnx

    return read_onnx(path)


FormatName = Literal["onnx", "torch", "safetensors"]
# By the name in --to.
MODEL_FORMATS: Mapping[FormatName, ModelFormat] = {
    "onnx": ModelFormat("ONNX", ".onnx", _read_onnx),
    "torch": ModelFormat("torch.export", ".pt2"),
    "safetensors": ModelFormat("safetensors", ".safetensors", read_safetensors, write_safetensors),
}


def describe_loadable(*, with_weights: bool = False) -> str:
    """Name the suffixes of the files that can be loaded, for help texts."""
    suffixes = [
        known.suffix
        for known in MODEL_FORMATS.values()
        if known.read is not None and (known.has_weights or not with_weights)
    ]
    return " or ".join(suffixes)
