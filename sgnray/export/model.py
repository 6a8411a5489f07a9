"""Export a trained model to a temporary file, compare it on clips, then move it into place.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sgnray import seeding
from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.model_files import describe_loadable
from sgnray.checkpoints.onnx_model import ComputeLogits
from sgnray.checkpoints.trained_model import (
    TrainedModel,
    dataset_of,
    load_trained_model,
    read_trained_model,
    sample_views,
)
from sgnray.data.store import find_dataset
from sgnray.errors import SgnError, UsageError
from sgnray.export.files import DEFAULT_OPSET, FORMATS, open_onnx, quantize_onnx, write_and_open
from sgnray.predict.sources import DatasetSource, Sample, find_source
from sgnray.storage.atomic import choose_format, make_parent, refuse_existing, written_atomically
from sgnray.storage.scratch import scratch_folder

log = logging.getLogger(__name__)

NUM_CLIPS = 200
# Per logit, relative for logits above 1: float32 sums in another order differ by this much.
TOLERANCE = 1e-5
MIN_AGREEMENT = 0.9
RANDOM = "random poses"


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


@dataclass(frozen=True)
class CheckClips:
    """Clips to compare on, and where they come from."""

    joints_BTVC: Tensor
    source: str


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
    if path.suffix.lower() != FORMATS[to] and FORMATS[to] in describe_loadable():
        log.warning("sgn loads the file only if its name ends with %s", FORMATS[to])
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
    with scratch_folder("sgn-onnx-") as folder:
        path = folder / "model.onnx"
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
        return replace(read_trained_model(path), path=trained_model.path)


def _check_options(to: str, opset: int | None, *, int8: bool) -> None:
    for option, is_given in (("--opset", opset is not None), ("--int8", int8)):
        if is_given and to != "onnx":
            raise UsageError(
                f"{option} is for ONNX only", where=f"--to {to} {option}", now=f"leave out {option}"
            )


def _default_name(trained_model: TrainedModel) -> str:
    return trained_model.run.path.resolve().name if trained_model.run else trained_model.path.stem


def find_clips(trained_model: TrainedModel, clips: Path | str | None) -> CheckClips:
    """Load clips from `clips`, else from the run's dataset, else from the one in data/.

    `clips` is a path or a URI. If none of these exists, poses are drawn at random; the source is
    then RANDOM.
    """
    for place in _places(trained_model) if clips is None else [clips]:
        try:
            return _real_clips(trained_model, place)
        except SgnError as error:
            if clips is not None:
                raise
            log.info("%s cannot be used to check the file: %s", place, error.what)
    shape = (NUM_CLIPS, *trained_model.require_sgn().clip_shape)
    return CheckClips(torch.from_numpy(seeding.normal(0, "check", 0, shape)), RANDOM)


def _places(trained_model: TrainedModel) -> Iterator[Path]:
    with suppress(SgnError):
        own = dataset_of(trained_model)
        if own is not None:
            yield own
        yield find_dataset(name=trained_model.card.dataset)


def _real_clips(trained_model: TrainedModel, place: Path | str) -> CheckClips:
    """Load up to NUM_CLIPS clips, spread evenly over a dataset."""
    source = find_source(place, trained_model.card.skeleton)
    if isinstance(source, DatasetSource):
        chosen = np.linspace(0, len(source.rows) - 1, min(NUM_CLIPS, len(source.rows)))
        source = DatasetSource(source.dataset, tuple(source.rows[int(at)] for at in chosen))
    samples = (item for item in source.read() if isinstance(item, Sample))
    poses = [sample.poses for sample in itertools.islice(samples, NUM_CLIPS)]
    if not poses:
        raise SgnError(
            "none of its recordings can be used", where=str(place), now="choose others with --clips"
        )
    return CheckClips(sample_views(poses, trained_model, 1).flatten(0, 1), str(place))


@torch.no_grad()
def compare(
    trained_model: TrainedModel,
    exported: ComputeLogits,
    clips: CheckClips,
    path: Path,
    *,
    what: str = "the exported file",
    now: str = "nothing was written; please report this, or export to another format",
) -> float:
    """Return the largest difference of any logit; SgnError if it is above the tolerance.

    Compares one clip alone and all clips in one batch, because any batch size must work.
    """
    first_1TVC = clips.joints_BTVC[:1]
    joints_BTVC = torch.cat((clips.joints_BTVC, first_1TVC))
    expected_BK = trained_model.model(torch.cat((joints_BTVC, first_1TVC)))
    found_BK = torch.cat((exported(joints_BTVC), exported(first_1TVC)))
    difference_BK = (found_BK - expected_BK).abs()
    worst = float((difference_BK / expected_BK.abs().clamp_min(1)).max())
    if not worst <= TOLERANCE:
        raise SgnError(
            f"{what} differs from the model by {worst:.1e} in a logit, more than {TOLERANCE:.0e}",
            where=f"{path}, {len(clips.joints_BTVC)} clips of {clips.source}",
            now=now,
        )
    return float(difference_BK.max())


@torch.no_grad()
def agree(
    trained_model: TrainedModel, exported: ComputeLogits, clips: CheckClips, path: Path
) -> float:
    """Return the share of clips that get the same class; SgnError if it is too small.

    For files with rounded weights, whose logits differ on purpose.
    """
    if clips.source == RANDOM:
        raise UsageError(
            "the effect of 8 bits can only be measured on real clips",
            where="--int8",
            now="name recordings or a dataset with --clips, or leave out --int8",
        )
    expected_B = trained_model.model(clips.joints_BTVC).argmax(dim=1)
    share = float((exported(clips.joints_BTVC).argmax(dim=1) == expected_B).double().mean())
    if share < MIN_AGREEMENT:
        raise SgnError(
            f"in 8 bits {1 - share:.1%} of the clips get another class",
            where=f"{path}, {len(expected_B)} clips of {clips.source}",
            now="nothing was written; export it without --int8",
        )
    return share
