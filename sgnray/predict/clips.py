"""The likeliest actions of recordings: read in one thread, recognized in blocks.

Legend: B clips of a block, W views, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.run_folder import Runs
from sgnray.checkpoints.trained_model import TrainedModel, load_trained_model
from sgnray.data.batches import view_draws
from sgnray.data.pose_bank import PoseBank
from sgnray.data.skeleton import Skeleton
from sgnray.distributed.device import Precision, choose_device, choose_precision, keep_freed_memory
from sgnray.errors import CheckpointError, UsageError
from sgnray.predict.sources import Sample, Source, find_sources
from sgnray.predict.windows import SlidingWindow, Span, cut
from sgnray.prepare.clip import Poses, Skipped

_BLOCK_CLIPS = 32

# One recording or window, with the number of recordings read so far.
_Numbered = tuple[int, Sample | Skipped]


@dataclass(frozen=True)
class Guess:
    """One action and its probability; `label` counts classes from 0."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest actions of one clip, the likeliest first; `span` is None for a whole clip.

    `place` is the file, the .zip and its member, or the dataset that the clip is from.
    """

    clip: str
    place: str
    num_poses: int
    guesses: tuple[Guess, ...]
    span: Span | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `sgn predict --json` prints it."""
        content: dict[str, Any] = vars(self) | {"guesses": [vars(one) for one in self.guesses]}
        content.pop("span")
        if self.span is not None:
            content |= {
                "first_frame": self.span.first,
                "end_frame": self.span.end,
                "start_s": self.span.start_s,
                "end_s": self.span.end_s,
            }
        return content


def predict_clips(
    sources: Path | Sequence[Path],
    checkpoint: Path | str | None = None,
    *,
    runs_dir: Runs = Path("runs"),
    clips: Sequence[str] = (),
    class_names: tuple[str, ...] | None = None,
    num_views: int | None = None,
    num_guesses: int = 5,
    window: int | None = None,
    stride: int | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Prediction | Skipped]:
    """Recognize raw recordings (files, folders, .zip files), or clips of a prepared dataset.

    `checkpoint` is a run, a checkpoint or the reference's .pth; the default is the newest run.
    With a `window` of so many frames, one every `stride` frames (default: half a window), each
    window of a recording gives one prediction. A recording that cannot be used is yielded as
    Skipped, with its reason. bf16 is several times faster where the hardware has it, and changes
    probabilities in their third digit; auto uses it there. Neither Ray nor a dataset is needed.
    Raises UsageError, InputError and CheckpointError immediately, before the first prediction.
    """
    torch_device = choose_device(device)
    model = load_trained_model(checkpoint, runs_dir=runs_dir).named(class_names)
    skeleton = model.require_skeleton()
    paths = [sources] if isinstance(sources, Path) else list(sources)
    found = find_sources(paths, skeleton, clips)
    keep_freed_memory()
    model.model.to(torch_device)
    recognizer = _Recognizer(
        model,
        names=model.labels(),
        num_views=num_views or model.card.num_views,
        num_guesses=num_guesses,
        device=torch_device,
        in_bf16=choose_precision(precision, torch_device.type) == "bf16",
    )
    sliding = _sliding_window(window, stride)
    return _predict(recognizer, found, sliding, skeleton, on_progress)


def sample_views(poses: Sequence[Poses], trained_model: TrainedModel, num_views: int) -> Tensor:
    """Sample prepared clips as the model's evaluation does, (B, W, T, V, C) on the CPU.

    All get the same draws, so that a prediction does not depend on the other clips of its block.
    """
    model = trained_model.model
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
    )
    draws_BWT = view_draws(1, num_views, model.num_frames).expand(len(poses), -1, -1)
    return bank.gather(torch.arange(len(poses)), draws_BWT, windows=trained_model.card.windows)


@dataclass(frozen=True)
class _Recognizer:
    """Names the likeliest actions of blocks of clips; the model is on `device` already."""

    model: TrainedModel
    names: tuple[str, ...]
    num_views: int
    num_guesses: int
    device: torch.device
    in_bf16: bool

    @torch.no_grad()
    def recognize(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        poses = [sample.poses for sample in samples]
        joints_BWTVC = sample_views(poses, self.model, self.num_views).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.in_bf16):
            logits = self.model.model(joints_BWTVC.flatten(0, 1))
        logits_BK = logits.view(*joints_BWTVC.shape[:2], -1).mean(dim=1)
        if not torch.isfinite(logits_BK).all():
            raise CheckpointError(
                "the logits of the model are not finite",
                where=f"{self.model.path}, {samples[0].clip}",
                now="use another checkpoint of the run, or --precision float32",
            )
        num_guesses = min(self.num_guesses, len(self.names))
        best = logits_BK.double().softmax(dim=1).topk(num_guesses, dim=1)
        for sample, labels, probabilities in zip(
            samples, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            guesses = tuple(
                Guess(label, self.names[label], probability)
                for label, probability in zip(labels, probabilities, strict=True)
            )
            num_poses = len(sample.poses.bodies)
            yield Prediction(sample.clip, sample.place, num_poses, guesses, sample.span)


def _predict(
    recognizer: _Recognizer,
    sources: Sequence[Source],
    sliding: SlidingWindow | None,
    skeleton: Skeleton,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction | Skipped]:
    total = sum(map(len, sources))
    recordings = itertools.chain.from_iterable(source.read() for source in sources)
    for block in _read_ahead(_blocks(_number(recordings, sliding, skeleton))):
        samples = [item for _, item in block if isinstance(item, Sample)]
        predictions = recognizer.recognize(samples) if samples else iter(())
        for _, item in block:
            yield item if isinstance(item, Skipped) else next(predictions)
        if on_progress is not None:
            on_progress(block[-1][0], total)


def _number(
    recordings: Iterable[Sample | Skipped], sliding: SlidingWindow | None, skeleton: Skeleton
) -> Iterator[_Numbered]:
    """Yield recordings, or the windows of each, with the recording's number from 1."""
    for number, item in enumerate(recordings, start=1):
        if sliding is None or isinstance(item, Skipped):
            yield number, item
            continue
        for span in sliding.spans(item.poses.num_frames):
            poses = cut(item.poses, span, skeleton)
            if poses is not None:
                yield number, dataclasses.replace(item, poses=poses, span=span)


def _blocks(items: Iterator[_Numbered]) -> Iterator[list[_Numbered]]:
    while block := list(itertools.islice(items, _BLOCK_CLIPS)):
        yield block


def _read_ahead(blocks: Iterator[list[_Numbered]]) -> Iterator[list[_Numbered]]:
    """Read the next block while the current one is recognized."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sgn-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _sliding_window(window: int | None, stride: int | None) -> SlidingWindow | None:
    if window is None:
        if stride is not None:
            raise UsageError(
                "a stride without a window", where=f"--stride {stride}", now="give --window, too"
            )
        return None
    stride = max(1, window // 2) if stride is None else stride
    if min(window, stride) < 1:
        raise UsageError(
            "window and stride must be at least one frame",
            where=f"--window {window} --stride {stride}",
            now="give numbers of frames; Kinect records 30 per second",
        )
    return SlidingWindow(window, stride)
