"""The description in an exported model, as JSON: enough to use it without sgnray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor

from sgnray.config import ModelConfig
from sgnray.config.schema import Selection, SmallCount, Windows, tuple_of_list
from sgnray.data.skeleton import ESTIMATED, MEDIAPIPE33, Skeleton, SkeletonField
from sgnray.errors import CheckpointError, SgnError, count_of
from sgnray.model.sgn import SGN
from sgnray.version import __version__

FORMAT_VERSION = 2  # of a model whose views turn, which an older sgnray would not do; else 1
KEY = "sgnray"  # the metadata key in every export format

_WINDOWS = {
    "paper": "num_frames segments of P // num_frames poses each, one pose drawn from each; a clip "
    "with fewer poses than num_frames gives them all, then zeros",
    "even": "num_frames segments of P / num_frames poses, not rounded, one pose drawn from each",
}
_TURN = (
    "; view w, counted from 0, is turned about the y axis by the angle "
    "a = (0, turn_rad, -turn_rad)[w % 3]: x' = x cos a - z sin a, z' = x sin a + z cos a"
)
_METERS = "joints are in meters, with y up; missing joints are interpolated over time; "
_SIGNS = "MediaPipe's world landmarks are multiplied by (1, -1, -1); "
_PIXELS = "pixels are multiplied by (f, -f), with one f in meters per pixel for the whole clip; "
_ORIGIN = "the origin joint of the main person's first pose is subtracted from all joints; "
_POSES = (
    "poses that are all zero are left out; where two people are in a frame, both are poses, the "
    "main person's first"
)


def describe_unfinished(num_trained: int | None, num_epochs: int | None) -> str | None:
    """Say how far a model was trained; None if to the end, or if that is unknown."""
    if num_trained is None or num_epochs is None or num_trained >= num_epochs:
        return None
    return f"trained for {num_trained} of {count_of(num_epochs, 'epoch')}"


class ModelCard(BaseModel):
    """A model's widths, skeleton, classes and sampling, and where it comes from.

    A field is None if the checkpoint does not record it, as those of the official code.
    `num_trained` of the `num_epochs` of the recipe were trained when it was written.
    """

    model_config = ConfigDict(frozen=True, strict=True, populate_by_name=True)

    skeleton: SkeletonField
    class_names: Annotated[tuple[str, ...], BeforeValidator(tuple_of_list)]
    config: ModelConfig = Field(validation_alias="model")
    num_frames: SmallCount
    windows: Windows
    num_views: SmallCount
    turn_rad: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    dataset: str | None
    case: str | None
    seed: int | None
    selection: Selection
    epoch: int | None
    num_trained: int | None = None
    num_epochs: int | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def replacing(self, **values: object) -> ModelCard:
        """Return the card with other values, validated."""
        return type(self).model_validate({**dict(self), **values})

    def build_model(self, weights: Mapping[str, Tensor]) -> SGN:
        """Build its SGN with these weights, in eval mode; RuntimeError if they do not fit."""
        model = build_sgn(self.config, self.skeleton, self.num_frames, self.num_classes)
        model.load_state_dict(dict(weights), strict=True)
        return model.eval()

    def to_json(self) -> str:
        """Return the card as JSON."""
        content = {
            "format_version": FORMAT_VERSION if self.turn_rad else 1,
            "sgnray": __version__,
            "input": "joints: float32 (clips, num_frames, joints, coordinates)",
            "output": "logits: float32 (clips, classes); average them over num_views draws",
            "preparation": self._preparation(),
            "sampling": _WINDOWS[self.windows] + (_TURN if self.turn_rad else ""),
            "model": self.config.model_dump(mode="json"),
            "skeleton": self.skeleton.to_dict(),
            "class_names": list(self.class_names),
            **self.model_dump(exclude={"config", "skeleton", "class_names"}),
        }
        return json.dumps(content, ensure_ascii=False)

    def _preparation(self) -> str:
        parts = [_ORIGIN] if self.skeleton.origin is not None else []
        if self.skeleton.name in ESTIMATED:
            parts.append(_METERS)
            parts += [_PIXELS] if self.skeleton.num_coordinates == 2 else []
            parts += [_SIGNS] if self.skeleton.name == MEDIAPIPE33.name else []
        return "".join([*parts, _POSES])

    @classmethod
    def from_json(cls, text: str | None) -> ModelCard:
        """Parse the output of `to_json`; ValueError for anything else, and for None."""
        if text is None:
            raise ValueError("it does not describe a model of sgnray")
        data = json.loads(text)
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int or version < 1:
            raise ValueError("it is not a description of a model")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"it has format version {version}, this sgnray reads up to {FORMAT_VERSION}: "
                "update sgnray"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(_first_problem(error)) from error


def _first_problem(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    return f"{key} is missing or has the wrong type"


@contextmanager
def reading(what: str, path: Path | str, *, now: str) -> Iterator[None]:
    """Turn any error of unexpected or corrupt content into a CheckpointError: `what`, and why."""
    try:
        yield
    except Exception as error:
        reason = error.what if isinstance(error, SgnError) else str(error)
        reason = " ".join(reason.split())[:200]  # torch's messages have several lines
        raise CheckpointError(f"{what}: {reason}", where=str(path), now=now) from error


def build_sgn(config: ModelConfig, skeleton: Skeleton, num_frames: int, num_classes: int) -> SGN:
    """Build an SGN with initial weights; ValueError if it needs bones and there are none."""
    return SGN(
        num_classes,
        num_joints=skeleton.num_joints,
        num_frames=num_frames,
        num_coordinates=skeleton.num_coordinates,
        bones=skeleton.bones,
        **{key: getattr(config, key) for key in ModelConfig.model_fields},
    )
