"""Compare an exported file with the model on clips, before it is kept.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sgnray import seeding
from sgnray.checkpoints.exported import ComputeLogits
from sgnray.checkpoints.trained_model import TrainedModel, dataset_of, sample_views
from sgnray.data.store import find_dataset
from sgnray.errors import SgnError, UsageError
from sgnray.predict.sources import DatasetSource, Sample, find_source

log = logging.getLogger(__name__)

NUM_CLIPS = 200
# Per logit, relative for logits above 1: float32 sums in another order differ by this much.
TOLERANCE = 1e-5
MIN_AGREEMENT = 0.9
RANDOM = "random poses"


@dataclass(frozen=True)
class CheckClips:
    """Clips to compare on, and where they come from."""

    joints_BTVC: Tensor
    source: str


def find_clips(trained_model: TrainedModel, clips: Path | str | None) -> CheckClips:
    """Load clips from `clips`, else from the run's dataset, else from the one in data/.

    `clips` is a path or a URI. If none of these exists, poses are drawn at random; the source is
    then RANDOM.
    """
    places: Sequence[Path | str] = [clips] if clips is not None else _places(trained_model)
    for place in places:
        try:
            return _real_clips(trained_model, place)
        except SgnError as error:
            if clips is not None:
                raise
            log.info("%s cannot be used to check the file: %s", place, error.what)
    shape = (NUM_CLIPS, *trained_model.require_sgn().clip_shape)
    return CheckClips(torch.from_numpy(seeding.normal(0, "check", 0, shape)), RANDOM)


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


def _places(trained_model: TrainedModel) -> list[Path]:
    places: list[Path | None] = []
    try:
        places.append(dataset_of(trained_model))
        places.append(find_dataset(name=trained_model.card.dataset))
    except SgnError:
        log.debug("no dataset to check with in data")
    return [place for place in places if place is not None]


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
