"""Export a trained model to a temporary file, compare it on clips, then move it into place."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.trained_model import TrainedModel, load_trained_model
from sgnray.errors import UsageError
from sgnray.export.check import RANDOM, agree, compare, find_clips
from sgnray.export.files import DEFAULT_OPSET, FORMATS, open_onnx, quantize_onnx, write_and_open
from sgnray.storage.atomic import choose_format, make_parent, refuse_existing, written_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """An exported file, and how much its logits differ from the model's on `num_clips` clips.

    With 8 bits, `agreement` is the share of clips that get the same class, and
    `largest_difference` is measured before rounding.
    """

    path: Path
    size_bytes: int
    opset: int | None
    largest_difference: float
    num_clips: int
    checked_on: str
    agreement: float | None
    card: ModelCard


def export_model(
    target: Path | str | None = None,
    *,
    to: str | None = None,
    out: Path | str | None = None,
    opset: int | None = None,
    int8: bool = False,
    clips: Path | str | None = None,
    class_names: tuple[str, ...] | None = None,
    runs_dir: Runs = Path("runs"),
    overwrite: bool = False,
) -> Exported:
    """Write a run, a checkpoint or the reference's .pth in one of FORMATS.

    Without `to` the suffix of `out` decides; the default is ONNX. The file says how clips are
    prepared and sampled, and names joints and classes. It is first compared with the model on up
    to 200 clips: of `clips` (recordings or a dataset), else of the dataset it was trained on.
    `int8` rounds the weights of ONNX to 8 bits: a quarter of the size and about half of the time;
    the file is kept if nine in ten clips get the same class. Raises UsageError, CheckpointError,
    InputError, OutputError.
    """
    to = choose_format(to, out, FORMATS, default="onnx")
    _check_options(to, opset, int8=int8)
    trained_model = load_trained_model(target, runs_dir=runs_dir).named(class_names)
    trained_model.require_sgn()
    path = Path(out or _default_name(trained_model) + FORMATS[to])
    refuse_existing(path, overwrite=overwrite)
    found = find_clips(trained_model, clips)
    if found.source == RANDOM:
        log.warning("no clips found: the file is checked on random poses; name clips with --clips")
    used_opset = DEFAULT_OPSET if opset is None else opset
    make_parent(path)
    with written_atomically(path, suffix=FORMATS[to]) as temporary:
        run = write_and_open(temporary, trained_model, to, used_opset)
        difference, agreement = compare(trained_model, run, found, path), None
        if int8:
            quantize_onnx(temporary)
            agreement = agree(trained_model, open_onnx(temporary, opset=used_opset), found, path)
    return Exported(
        path=path,
        size_bytes=path.stat().st_size,
        opset=used_opset if to == "onnx" else None,
        largest_difference=difference,
        num_clips=len(found.joints_BTVC),
        checked_on=found.source,
        agreement=agreement,
        card=trained_model.card,
    )


def through_onnx(trained_model: TrainedModel) -> TrainedModel:
    """Return the same model run by onnxruntime, after comparing the two; no file is kept.

    Without the dataset of the run, they are compared on random poses.
    """
    with tempfile.TemporaryDirectory(prefix="sgn-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        run = write_and_open(path, trained_model, "onnx", DEFAULT_OPSET)
        found = find_clips(trained_model, None)
        compare(
            trained_model,
            run,
            found,
            trained_model.path,
            what="onnxruntime's result",
            now="use --runtime torch, and please report this",
        )
        return replace(load_trained_model(path), path=trained_model.path)


def _check_options(to: str, opset: int | None, *, int8: bool) -> None:
    for option, is_given in (("--opset", opset is not None), ("--int8", int8)):
        if is_given and to != "onnx":
            raise UsageError(
                f"{option} is for ONNX only", where=f"--to {to} {option}", now=f"leave out {option}"
            )


def _default_name(trained_model: TrainedModel) -> str:
    return trained_model.run.path.resolve().name if trained_model.run else trained_model.path.stem
