"""What an exported model says of itself, as JSON: enough to use it without sgnray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sgnray.config import ModelConfig, parse_recipe
from sgnray.data.sampling import Windows
from sgnray.data.skeleton import Skeleton
from sgnray.model.sgn import SGN
from sgnray.version import __version__

FORMAT_VERSION = 1
KEY = "sgnray"  # under which every format keeps it

_WINDOWS = {
    "paper": "num_frames windows of P // num_frames poses each, one pose drawn from each; a clip "
    "with fewer poses than num_frames gives them all, then zeros",
    "even": "num_frames windows of P / num_frames poses, not rounded, one pose drawn from each",
}
_ORIGIN = "the origin joint of the main person's first pose is subtracted from all joints; "
_POSES = (
    "poses that are all zero are left out; where two people are in a frame, both are poses, the "
    "main person's first"
)


@dataclass(frozen=True)
class ModelCard:
    """A model's widths, skeleton, classes and sampling, and where it comes from."""

    config: ModelConfig
    skeleton: Skeleton
    class_names: tuple[str, ...]
    num_frames: int
    windows: Windows
    num_views: int
    dataset: str | None
    case: str | None
    seed: int | None
    selection: str
    epoch: int | None

    def build_model(self, weights: Mapping[str, Tensor]) -> SGN:
        """Build its SGN with these weights, in eval mode; RuntimeError where they do not fit."""
        model = build_sgn(self.config, self.skeleton, self.num_frames, len(self.class_names))
        model.load_state_dict(dict(weights), strict=True)
        return model.eval()

    def to_json(self) -> str:
        """Write it as JSON."""
        content = {
            "format_version": FORMAT_VERSION,
            "sgnray": __version__,
            "input": "joints: float32 (clips, num_frames, joints, coordinates)",
            "output": "logits: float32 (clips, classes); average them over num_views draws",
            "preparation": ("" if self.skeleton.origin is None else _ORIGIN) + _POSES,
            "sampling": _WINDOWS[self.windows],
            "model": self.config.model_dump(mode="json"),
            "skeleton": self.skeleton.to_dict(),
            "class_names": list(self.class_names),
            "num_frames": self.num_frames,
            "windows": self.windows,
            "num_views": self.num_views,
            "dataset": self.dataset,
            "case": self.case,
            "seed": self.seed,
            "selection": self.selection,
            "epoch": self.epoch,
        }
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read what `to_json` gave; ValueError or an SgnError for anything else."""
        data = json.loads(text)
        if not isinstance(data, dict) or not _is_count(data.get("format_version")):
            raise ValueError("it is no description of a model")
        if data["format_version"] > FORMAT_VERSION:
            raise ValueError(
                f"it has format version {data['format_version']}, this sgnray reads up to "
                f"{FORMAT_VERSION}: install a newer one"
            )
        for key, is_right in _CHECKS.items():
            if key not in data or not is_right(data[key]):
                raise ValueError(f"{key} is missing, or of a wrong type")
        return cls(
            config=parse_recipe({"model": data["model"]}).model,
            skeleton=Skeleton.from_dict(data["skeleton"]),
            class_names=tuple(data["class_names"]),
            **{key: data[key] for key in _PLAIN},
        )


def build_sgn(config: ModelConfig, skeleton: Skeleton, num_frames: int, num_classes: int) -> SGN:
    """Build an SGN with fresh weights; ValueError for what needs bones that are not there."""
    return SGN(
        num_classes,
        num_joints=skeleton.num_joints,
        num_frames=num_frames,
        num_coordinates=skeleton.num_coordinates,
        inputs=config.inputs,
        bones=skeleton.bones,
        joint_type=config.joint_type,
        frame_index=config.frame_index,
        affinity=config.affinity,
        embedding_width=config.embedding_width,
        affinity_width=config.affinity_width,
        graph_widths=config.graph_widths,
        frame_width=config.frame_width,
        dropout=config.dropout,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**4


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_CHECKS = {
    "model": lambda value: isinstance(value, dict),
    "skeleton": lambda value: isinstance(value, dict),
    "class_names": _are_names,
    "num_frames": _is_count,
    "num_views": _is_count,
    "windows": lambda value: value in _WINDOWS,
    "dataset": _is_text,
    "case": _is_text,
    "seed": _is_number,
    "selection": lambda value: value in ("last", "validation", "test"),
    "epoch": _is_number,
}
_PLAIN = [key for key in _CHECKS if key not in ("model", "skeleton", "class_names")]
