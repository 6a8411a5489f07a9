"""Self-describing checkpoints: written atomically, read strictly, safe to open.

A checkpoint is one file of tensors and plain containers, opened with `weights_only=True`, so that
no code in it can run. It holds everything that evaluating and resuming need.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, ValidationError
from torch import Tensor

from sgnray.checkpoints.model_card import build_sgn, reading
from sgnray.config import ModelConfig, Recipe, parse_recipe
from sgnray.data.skeleton import NAMED, Skeleton
from sgnray.errors import CheckpointError, CorruptError
from sgnray.model.reference import find_reference, model_from_reference, reference_config
from sgnray.model.sgn import SGN
from sgnray.storage.atomic import make_parent, write_bytes

FORMAT_VERSION = 3

State = dict[str, Any]

_INVALID = "the checkpoint cannot be used: its content is invalid"
_OTHER_CHECKPOINT = "use another checkpoint of the run, or train again"

Weights = dict[str, Tensor]
Epoch = Annotated[int, Field(strict=True, ge=0)]


class Selected(BaseModel):
    """The best epoch so far and its weights, if the recipe selects by accuracy."""

    # Not strict as a whole: pydantic would refuse the dict read from a file.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    epoch: Epoch
    top1: StrictFloat
    weights: Weights


class Checkpoint(BaseModel):
    """The saved state of a training run after one finished epoch.

    `recipe` is the resolved recipe as plain data; `history` has one dict of metrics per finished
    epoch; `averaged` is None unless the recipe keeps a mean of the weights,
    `selected` unless it selects by accuracy.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True
    )

    recipe: dict[str, dict[str, Any]]
    skeleton: Skeleton
    class_names: list[str]
    epoch: Epoch
    weights: Weights
    averaged: Weights | None
    optimizer: State
    history: list[dict[str, float]]
    selected: Selected | None
    format_version: int = FORMAT_VERSION

    @property
    def evaluated_weights(self) -> Weights:
        """The weights to evaluate: the selected ones if any, else the averaged, else the last."""
        if self.selected is not None:
            return self.selected.weights
        return self.weights if self.averaged is None else self.averaged

    @property
    def evaluated_epoch(self) -> int:
        """The epoch that `evaluated_weights` come from."""
        return self.selected.epoch if self.selected else self.epoch

    def parse_recipe(self) -> Recipe:
        """Return the recipe it was trained with."""
        return parse_recipe(self.recipe)

    def build_model(self) -> SGN:
        """Build its SGN with the weights to evaluate, in eval mode."""
        model = build_model(self.parse_recipe(), self.skeleton, len(self.class_names))
        model.load_state_dict(self.evaluated_weights, strict=True)
        return model.eval()


def build_model(recipe: Recipe, skeleton: Skeleton, num_classes: int) -> SGN:
    """Build the SGN of a recipe for a kind of skeleton, with initial weights."""
    return build_sgn(recipe.model, skeleton, recipe.data.num_segments, num_classes)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; raises OutputError."""
    make_parent(path)
    write_bytes(path, pack_checkpoint(checkpoint))


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the content of a checkpoint's file."""
    content = {**dict(checkpoint), "skeleton": checkpoint.skeleton.to_dict()}
    if checkpoint.selected is not None:
        content["selected"] = dict(checkpoint.selected)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read one of our checkpoints and check that it is whole; raises CheckpointError."""
    return unpack_checkpoint(_read_bytes(Path(path)), where=str(path))


def unpack_checkpoint(data: bytes, *, where: str) -> Checkpoint:
    """Read the content of a checkpoint's file, as `load_checkpoint` does; `where` names it."""
    return _build_checkpoint(_unpack(data, where), where)


def load_reference(path: str | Path) -> SGN:
    """Read a checkpoint of the official code (microsoft/SGN) and return its model, in eval mode.

    Raises CheckpointError if the file is corrupt, runs code, or does not hold that model.
    """
    state = find_reference(_unpack(_read_bytes(Path(path)), str(path)))
    if state is None:
        raise _refused(str(path), "it is not a checkpoint of the reference implementation")
    return _build_reference(state, str(path))[0]


def load_either(path: Path) -> Checkpoint | tuple[SGN, ModelConfig]:
    """Read one of our checkpoints, or the model of the official code's and its widths."""
    content = _unpack(_read_bytes(path), str(path))
    state = find_reference(content)
    if state is None:
        return _build_checkpoint(content, str(path))
    return _build_reference(state, str(path))


def _build_reference(state: Weights, where: str) -> tuple[SGN, ModelConfig]:
    with reading(_INVALID, where, now=_OTHER_CHECKPOINT):
        return model_from_reference(state).eval(), reference_config(state)


def _build_checkpoint(content: State, where: str) -> Checkpoint:
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _refused(where, "it is not a checkpoint of sgnray")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"it has format version {version}, this sgnray reads up to {FORMAT_VERSION}",
            where=where,
            now="update sgnray",
        )
    with reading(_INVALID, where, now=_OTHER_CHECKPOINT):
        checkpoint = _parse(content)
        _check_average(checkpoint)
        checkpoint.build_model()
    return checkpoint


def _parse(content: State) -> Checkpoint:
    """Check every field's type; raises ValueError."""
    content = dict(content)
    if content["format_version"] == 1:  # it has the name of one of two skeletons
        layout = content.pop("layout")
        if layout not in NAMED:
            raise ValueError(f"the skeleton layout {layout!r} is unknown")
        content["skeleton"] = NAMED[layout].to_dict()
    if content["format_version"] < 3:
        content["averaged"] = None
    content["skeleton"] = Skeleton.from_dict(content["skeleton"])
    try:
        return Checkpoint(**{**content, "format_version": FORMAT_VERSION})
    except ValidationError as error:
        key = error.errors(include_url=False, include_input=False)[0]["loc"][0]
        raise ValueError(f"{key} has the wrong type") from error


def _check_average(checkpoint: Checkpoint) -> None:
    """Raise ValueError if the mean of the weights is missing or unexpected."""
    is_wanted = checkpoint.parse_recipe().train.ema_decay > 0
    if is_wanted and checkpoint.averaged is None:
        raise ValueError("averaged is missing, but its recipe keeps a mean of the weights")
    if not is_wanted and checkpoint.averaged is not None:
        raise ValueError("it has averaged weights, but its recipe keeps no mean of them")


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(
            "checkpoint not found",
            where=str(path),
            now="name a run folder or a checkpoint file; sgn train writes them",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(str(path), f"it cannot be read: {error.strerror or error}") from error


def _unpack(data: bytes, where: str) -> State:
    """Open a file of tensors without running any code in it."""
    try:
        _check_sums(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a strange pickle, then refuses it
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # an unexpected file can raise anything in an unpickler
        raise CorruptError(
            "the checkpoint cannot be used: it is corrupt, or not a checkpoint",
            where=where,
            now=_OTHER_CHECKPOINT,
        ) from error
    if not isinstance(content, dict):
        raise _refused(where, "it contains no checkpoint")
    return content


def _check_sums(data: bytes) -> None:
    """Verify the checksums that torch writes into its archive but does not check."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)


def _refused(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint cannot be used: {what}", where=where, now=_OTHER_CHECKPOINT
    )
