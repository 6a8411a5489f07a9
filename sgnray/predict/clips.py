"""The likeliest actions of recordings: read in one thread, recognized in blocks.

Legend: B clips of a block, W views, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgnray.checkpoints.trained_model import TrainedModel, load_trained_model
from sgnray.data.skeleton import Skeleton
from sgnray.distributed.device import Precision, choose_device, choose_precision, keep_freed_memory
from sgnray.errors import CheckpointError, UsageError
from sgnray.predict.sources import Sample, Source, find_sources
from sgnray.predict.views import sample_views
from sgnray.predict.windows import Span, Windows, cut
from sgnray.prepare.clip import Poses, Skipped

_BLOCK_CLIPS = 32


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
    checkpoint: Path | None = None,
    *,
    runs_dir: Path = Path("runs"),
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

    `checkpoint` is a run, a checkpoint or the reference's .pth; without one, the newest run. With
    a `window` of so many frames, one every `stride` frames (half a window unless said), a
    recording gives one prediction for each. A recording that cannot be used comes as Skipped, with
    its reason. bf16 is several times faster where the hardware has it, and changes probabilities
    in their third digit; auto takes it there. Neither Ray nor a dataset is needed. Raises
    UsageError, InputError and CheckpointError at once, before the first prediction.
    """
    torch_device = choose_device(device)
    trained_model = load_trained_model(checkpoint, runs_dir=runs_dir).named(class_names)
    skeleton = trained_model.require_skeleton()
    paths = [sources] if isinstance(sources, Path) else list(sources)
    found = find_sources(paths, skeleton, clips)
    keep_freed_memory()
    guesser = _Guesser(
        trained_model,
        num_views=num_views or trained_model.card.num_views,
        num_guesses=num_guesses,
        device=torch_device,
        in_bf16=choose_precision(precision, torch_device.type) == "bf16",
    )
    windows = _windows(window, stride)
    return _predict(guesser, found, windows, skeleton, on_progress)


@dataclass(frozen=True)
class _Piece:
    """What gets one prediction; `num_done` recordings are finished with it."""

    sample: Sample
    span: Span | None
    poses: Poses
    num_done: int


class _Guesser:
    """A model that names the likeliest actions of blocks of clips."""

    def __init__(
        self,
        trained_model: TrainedModel,
        *,
        num_views: int,
        num_guesses: int,
        device: torch.device,
        in_bf16: bool,
    ) -> None:
        self._model = trained_model.model.to(device)
        self._labels = trained_model.labels()
        self._trained_model = trained_model
        self._num_guesses = min(num_guesses, len(self._labels))
        self._device = device
        self._in_bf16 = in_bf16
        self._num_views = num_views

    @torch.no_grad()
    def guess(self, pieces: Sequence[_Piece]) -> Iterator[Prediction]:
        """Recognize a block."""
        poses = [piece.poses for piece in pieces]
        joints_BWTVC = sample_views(poses, self._trained_model, self._num_views).to(self._device)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._in_bf16):
            logits = self._model(joints_BWTVC.flatten(0, 1))
        logits_BK = logits.view(*joints_BWTVC.shape[:2], -1).mean(dim=1)
        if not torch.isfinite(logits_BK).all():
            raise CheckpointError(
                "the model gives something that is no number",
                where=f"{self._trained_model.path}, {pieces[0].sample.clip}",
                now="use another checkpoint of the run, or --precision float32",
            )
        best = logits_BK.double().softmax(dim=1).topk(self._num_guesses, dim=1)
        for piece, labels, probabilities in zip(
            pieces, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            guesses = tuple(
                Guess(label, self._labels[label], probability)
                for label, probability in zip(labels, probabilities, strict=True)
            )
            yield Prediction(
                piece.sample.clip,
                piece.sample.place,
                len(piece.poses.bodies),
                guesses,
                piece.span,
            )


def _predict(
    guesser: _Guesser,
    sources: Sequence[Source],
    windows: Windows | None,
    skeleton: Skeleton,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction | Skipped]:
    total = sum(map(len, sources))
    samples = itertools.chain.from_iterable(source.read() for source in sources)
    for block in _ahead(_blocks(_pieces(samples, windows, skeleton))):
        pieces = [item for item in block if isinstance(item, _Piece)]
        predictions = guesser.guess(pieces) if pieces else iter(())
        for item in block:
            yield item if isinstance(item, Skipped) else next(predictions)
        if pieces and on_progress is not None:
            on_progress(pieces[-1].num_done, total)


def _pieces(
    samples: Iterable[Sample | Skipped], windows: Windows | None, skeleton: Skeleton
) -> Iterator[_Piece | Skipped]:
    for number, sample in enumerate(samples, start=1):
        if isinstance(sample, Skipped):
            yield sample
        elif windows is None:
            yield _Piece(sample, None, sample.poses, number)
        else:
            for span in windows.spans(sample.poses.num_frames):
                poses = cut(sample.poses, span, skeleton)
                if poses is not None:
                    yield _Piece(sample, span, poses, number)


def _blocks(items: Iterator[_Piece | Skipped]) -> Iterator[list[_Piece | Skipped]]:
    while block := list(itertools.islice(items, _BLOCK_CLIPS)):
        yield block


def _ahead(blocks: Iterator[list[_Piece | Skipped]]) -> Iterator[list[_Piece | Skipped]]:
    """Read the next block while this one is recognized."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sgn-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _windows(window: int | None, stride: int | None) -> Windows | None:
    if window is None:
        if stride is not None:
            raise UsageError(
                "a stride without a window", where=f"--stride {stride}", now="give --window, too"
            )
        return None
    size, step = window, stride or max(1, window // 2)
    if min(size, step) < 1:
        raise UsageError(
            "a window has at least one frame, and so has its stride",
            where=f"--window {window} --stride {stride}",
            now="give frames; Kinect records 30 of them in a second",
        )
    return Windows(size, step)
