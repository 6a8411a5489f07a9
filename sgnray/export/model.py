"""Export a trained model: written aside, compared with it on clips, then moved into place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.safetensors import read_safetensors, write_safetensors
from sgnray.checkpoints.trained_model import TrainedModel, load_trained_model
from sgnray.errors import UsageError
from sgnray.export.check import agree, compare, find_clips
from sgnray.export.onnx_file import DEFAULT_OPSET, open_onnx, quantize_onnx, write_onnx
from sgnray.export.torch_file import open_torch, write_torch
from sgnray.storage.atomic import choose_format, output_errors

Format = Literal["onnx", "torch", "safetensors"]
FORMATS: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its logits are from the model's on `num_clips` clips.

    `agreement` is the share of clips that it takes for the same class in 8 bits, None without
    these; the logits are those before rounding then.
    """

    path: Path
    size_bytes: int
    opset: int | None
    largest_difference: float
    num_clips: int
    checked_on: str
    agreement: float | None
    description: ModelCard


def export_model(
    target: Path | None = None,
    *,
    to: str | None = None,
    out: Path | None = None,
    opset: int | None = None,
    int8: bool = False,
    clips: Path | None = None,
    class_names: tuple[str, ...] | None = None,
    runs_dir: Path = Path("runs"),
    overwrite: bool = False,
) -> Exported:
    """Write a run, a checkpoint or the reference's .pth as ONNX, torch.export or safetensors.

    Without `to` the suffix of `out` decides, else it is ONNX. The file says how clips are prepared
    and sampled, and names joints and classes. It is compared with the model on up to 200 clips
    first: those of `clips` (recordings or a dataset), else of the dataset it was trained on.
    `int8` rounds the weights of ONNX to 8 bits: a quarter of the size and about half of the time;
    it is kept if nine in ten clips get the same class. Raises UsageError, CheckpointError,
    InputError, OutputError.
    """
    to = choose_format(to, out, FORMATS, default="onnx")
    _check(to, opset, int8=int8)
    trained_model = load_trained_model(target, runs_dir=runs_dir).named(class_names)
    path = out or Path(_name(trained_model) + FORMATS[to])
    if path.exists() and not overwrite:
        raise UsageError(
            "the file exists already",
            where=str(path),
            now="choose another with --out, or replace it with --overwrite",
        )
    found = find_clips(trained_model, clips)
    if to == "onnx":
        opset = opset or DEFAULT_OPSET
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial{FORMATS[to]}")
    try:
        with output_errors(path):
            run = _write(aside, trained_model, to, opset)
        difference, agreement = compare(trained_model, run, found, path), None
        if int8 and opset is not None:
            quantize_onnx(aside)
            agreement = agree(trained_model, open_onnx(aside, opset=opset), found, path)
        with output_errors(path):
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return Exported(
        path=path,
        size_bytes=path.stat().st_size,
        opset=opset,
        largest_difference=difference,
        num_clips=len(found.joints_BTVC),
        checked_on=found.source,
        agreement=agreement,
        description=trained_model.describe(),
    )


def _write(
    path: Path, trained_model: TrainedModel, to: str, opset: int | None
) -> Callable[[Tensor], Tensor]:
    """Write one format and return what its own reader makes of it."""
    if to == "onnx":
        assert opset is not None
        write_onnx(path, trained_model, opset=opset)
        return open_onnx(path, opset=opset)
    if to == "torch":
        write_torch(path, trained_model)
        return open_torch(path)
    write_safetensors(path, trained_model.model.state_dict(), trained_model.describe())
    weights, description = read_safetensors(path)
    return description.build_model(weights)


def _check(to: str, opset: int | None, *, int8: bool) -> None:
    for option, is_asked in (("--opset", opset is not None), ("--int8", int8)):
        if is_asked and to != "onnx":
            raise UsageError(
                f"{option} is for ONNX only", where=f"--to {to} {option}", now=f"leave out {option}"
            )


def _name(trained_model: TrainedModel) -> str:
    return trained_model.run.path.resolve().name if trained_model.run else trained_model.path.stem
