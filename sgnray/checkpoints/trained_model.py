"""A trained model with all that is needed to use it: its skeleton, its classes, how it samples.

Legend: B clips, W views, T frames, M people, V joints, C coordinates, P poses, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgnray.checkpoints.checkpoint import Checkpoint, load_either
from sgnray.checkpoints.claim import Runs, folder_in
from sgnray.checkpoints.model_card import ModelCard, describe_unfinished
from sgnray.checkpoints.model_files import MODEL_FORMATS
from sgnray.checkpoints.onnx_model import OnnxModel
from sgnray.checkpoints.run_folder import (
    CHECKPOINT_FILE,
    RunFolder,
    is_trained_on,
    newest_run,
    read_folder,
    run_of,
)
from sgnray.config import ModelConfig
from sgnray.data.batches import gather_views, view_draws
from sgnray.data.datasets import find_published, read_class_names
from sgnray.data.info import INFO_FILE, read_info
from sgnray.data.pose_bank import PoseBank
from sgnray.data.skeleton import NTU25
from sgnray.errors import CheckpointError, UsageError, check_count
from sgnray.model.sgn import SGN
from sgnray.prepare.clip import Poses, refusal
from sgnray.prepare.in_memory import list_clip
from sgnray.storage.location import as_folder
from sgnray.storage.mirror import display_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guess:
    """One action and its probability; `label` counts classes from 0."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class TrainedModel:
    """A model in eval mode on the CPU, its card, and the run that its checkpoint is in."""

    path: Path
    model: SGN | OnnxModel
    card: ModelCard
    run: RunFolder | None

    def named(self, class_names: tuple[str, ...] | None) -> TrainedModel:
        """Rename the classes if names are given; UsageError if their number is wrong."""
        if class_names is None:
            return self
        if len(class_names) != self.model.num_classes:
            raise UsageError(
                f"there are {len(class_names)} class names for {self.model.num_classes} classes",
                where=f"--classes, {self.path}",
                now="give one name on each line, in the order of the labels",
            )
        return replace(self, card=self.card.replacing(class_names=class_names))

    def require_sgn(self) -> SGN:
        """Return its model if it has weights; UsageError for an ONNX file."""
        if isinstance(self.model, SGN):
            return self.model
        raise UsageError(
            "an ONNX file can only be used to predict",
            where=str(self.path),
            now="name the run or the checkpoint that it was exported from",
        )

    def predict(
        self, joints: npt.ArrayLike, *, num_views: int | None = None, num_guesses: int = 5
    ) -> tuple[Guess, ...]:
        """Name the likeliest actions of one clip in memory, the likeliest first.

        `joints` are (T, V, C) for one person or (T, M, V, C) for one or two, in the order and unit
        of the model's skeleton; a person missing from a frame is all NaN or all zero. Frames
        without a person are ignored. Raises InputError, or CheckpointError as `recognize_one` does.
        """
        poses = list_clip(joints, self.card.skeleton)
        return self.recognize_one(poses, num_views=num_views, num_guesses=num_guesses)

    def recognize_one(
        self,
        clip: Poses,
        *,
        num_views: int | None = None,
        num_guesses: int = 5,
        in_bf16: bool = False,
    ) -> tuple[Guess, ...]:
        """Name the likeliest actions of a prepared clip; ClipError if it has no finite result.

        Raises CheckpointError if the model gives no finite result even for poses of zeros.
        """
        recognize = partial(
            self.recognize, num_views=num_views, num_guesses=num_guesses, in_bf16=in_bf16
        )
        try:
            return recognize([clip])[0]
        except CheckpointError:
            recognize([replace(clip, values_PD=np.zeros_like(clip.values_PD))])
        raise refusal(
            "the model gives no finite result: are its coordinates in the right unit?",
            now="give joints in the unit of those that the model was trained on",
        )

    @torch.no_grad()
    def recognize(
        self,
        clips: Sequence[Poses],
        *,
        num_views: int | None = None,
        num_guesses: int = 5,
        in_bf16: bool = False,
    ) -> list[tuple[Guess, ...]]:
        """Name the likeliest actions of prepared clips; CheckpointError for non-finite logits."""
        check_counts(num_views, num_guesses)
        device = next(iter(self.model.state_dict().values())).device
        joints_BWTVC = sample_views(clips, self, num_views or self.card.num_views).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bf16):
            logits = self.model(joints_BWTVC.flatten(0, 1))
        logits_BK = logits.view(*joints_BWTVC.shape[:2], -1).mean(dim=1)
        if not torch.isfinite(logits_BK).all():
            raise CheckpointError(
                "the logits of the model are not finite",
                where=str(self.path),
                now="use another checkpoint of the run, or --precision float32",
            )
        names = self.card.class_names
        best = logits_BK.double().softmax(dim=1).topk(min(num_guesses, len(names)), dim=1)
        return [
            tuple(Guess(label, names[label], share) for label, share in zip(*ranked, strict=True))
            for ranked in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def load_trained_model(
    target: Path | str | None = None, *, runs_dir: Runs = Path("runs")
) -> TrainedModel:
    """Load a run, a checkpoint, an exported file that can be loaded, or an official .pth.

    A run is given by the path or URI of its folder, or by its name in `runs_dir`; the default is
    the newest run. Raises UsageError or CheckpointError.
    """
    trained_model = read_trained_model(_find_checkpoint(target, runs_dir))
    card = trained_model.card
    unfinished = describe_unfinished(card.num_trained, card.num_epochs)
    if unfinished is not None:
        log.warning("%s: %s", display_name(trained_model.path), unfinished)
    return trained_model


def read_trained_model(path: Path) -> TrainedModel:
    """Load a file as `load_trained_model` does, without a warning of how far it was trained."""
    known = {each.suffix: each for each in MODEL_FORMATS.values()}.get(path.suffix.lower())
    if known is not None and known.read is not None:
        return TrainedModel(path, *known.read(path), run=None)
    if known is not None:
        loadable = [name for name, other in MODEL_FORMATS.items() if other.read is not None]
        raise UsageError(
            f"a {known.title} file cannot be used as a checkpoint",
            where=str(path),
            now=f"use the run that it was exported from, or export that to {' or '.join(loadable)}",
        )
    loaded = load_either(path)
    if isinstance(loaded, Checkpoint):
        return _from_checkpoint(path, loaded)
    return _from_reference(path, *loaded)


def check_counts(num_views: int | None, num_guesses: int) -> None:
    """Raise UsageError for numbers of views or of actions below 1."""
    check_count(num_views, "view", option="--views")
    check_count(num_guesses, "action", option="--top")


def sample_views(poses: Sequence[Poses], trained_model: TrainedModel, num_views: int) -> Tensor:
    """Sample prepared clips as the model's evaluation does, (B, W, T, V, C) on the CPU.

    All clips get the same draws, so that a prediction does not depend on the clips around it.
    """
    model, card = trained_model.model, trained_model.card
    shape = (-1, model.num_joints, model.num_coordinates)
    lengths = torch.tensor([len(clip.bodies) for clip in poses])
    values_PVC = np.concatenate([clip.values_PD for clip in poses]).reshape(shape)
    bank = PoseBank(
        poses_PVC=torch.from_numpy(values_PVC),
        first_pose_N=lengths.cumsum(dim=0) - lengths,
        num_poses_N=lengths,
        labels_N=torch.zeros_like(lengths),
        names=("",) * len(poses),
        device=torch.device("cpu"),
        skeleton=card.skeleton,
    )
    draws_BWT = view_draws(1, num_views, model.num_frames).expand(len(poses), -1, -1)
    rows_B = torch.arange(len(poses))
    return gather_views(bank, rows_B, draws_BWT, windows=card.windows, turn_rad=card.turn_rad)


def dataset_of(trained_model: TrainedModel) -> Path | None:
    """Return the dataset folder that a model was trained on; None if it is gone."""
    environment = trained_model.run.environment() if trained_model.run else None
    if environment is None:
        return None
    dataset_dir = Path(environment["dataset_dir"])
    if not (dataset_dir / INFO_FILE).is_file():
        return None
    if not is_trained_on(environment, read_info(dataset_dir), trained_model.card.case):
        log.warning("%s has changed since the run was trained on it", dataset_dir)
    return dataset_dir


def _find_checkpoint(target: Path | str | None, runs_dir: Runs) -> Path:
    """Find the checkpoint: of the newest run, of a run's folder or name, or the given file."""
    if target is None:
        return newest_run(runs_dir).require_checkpoint()[0]
    place = as_folder(target)
    if isinstance(place, Path) and not place.exists() and place.parent == Path():
        place = folder_in(runs_dir, place.name)
    if not (place.exists() if isinstance(place, Path) else place.entry()):
        raise UsageError(
            "run or checkpoint not found",
            where=str(place),
            now="name a run folder or a checkpoint; without one, the newest run is used",
        )
    path = read_folder(place)
    if path.is_file():
        return path
    own = path / CHECKPOINT_FILE  # the folder of one epoch
    return own if own.is_file() else RunFolder(path).require_checkpoint()[0]


def _from_checkpoint(path: Path, checkpoint: Checkpoint) -> TrainedModel:
    recipe = checkpoint.parse_recipe()
    card = ModelCard(
        config=recipe.model,
        skeleton=checkpoint.skeleton,
        class_names=tuple(checkpoint.class_names),
        num_frames=recipe.data.num_segments,
        windows=recipe.data.windows,
        num_views=recipe.evaluate.num_views,
        turn_rad=recipe.evaluate.turn_rad,
        dataset=recipe.data.dataset,
        case=recipe.data.case,
        seed=recipe.train.seed,
        selection=recipe.train.selection,
        epoch=checkpoint.evaluated_epoch,
        num_trained=checkpoint.epoch,
        num_epochs=recipe.train.num_epochs,
    )
    return TrainedModel(path, checkpoint.build_model(), card, run_of(path))


def _from_reference(path: Path, model: SGN, config: ModelConfig) -> TrainedModel:
    """Describe an official model: NTU's skeleton, and its class names or numbers."""
    if (model.num_joints, model.num_coordinates) != (NTU25.num_joints, NTU25.num_coordinates):
        raise CheckpointError(
            f"the checkpoint does not name the skeleton of its {model.num_joints} joints",
            where=str(path),
            now="the official code only supports NTU RGB+D's 25 joints; train again with sgn train",
        )
    published = find_published(model.num_classes, NTU25)
    numbered = tuple(f"class {number}" for number in range(1, model.num_classes + 1))
    card = ModelCard(
        config=config,
        skeleton=NTU25,
        class_names=read_class_names(published) if published else numbered,
        num_frames=model.num_frames,
        windows="paper",
        num_views=5,  # the paper's; the checkpoint does not say
        dataset=None,
        case=None,
        seed=None,
        selection="test",  # the official code selects by test accuracy
        epoch=None,
    )
    return TrainedModel(path, model, card, run=None)
