"""The likeliest actions of recordings: read in one thread, recognized in blocks.

`predict_clips` builds a `PredictionPlan`, which cuts the recordings into parts; a thread reads
them, and the model runs on what was read.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.onnx_model import OnnxModel
from sgnray.checkpoints.trained_model import Guess, TrainedModel, check_counts, load_trained_model
from sgnray.config.schema import Precision
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.skipped import Skipped
from sgnray.distributed.device import (
    check_device_name,
    choose_device,
    explained_gpu_memory,
    keep_freed_memory,
)
from sgnray.distributed.pool import run_on_actors
from sgnray.distributed.precision import resolve_for_workers
from sgnray.distributed.resources import WorkerRequest, check_without_ray
from sgnray.errors import CheckpointError, ClipError, UsageError
from sgnray.predict.sources import DatasetSource, PredictionPart, Sample, Source, find_sources
from sgnray.predict.windows import SkippedWindow, SlidingWindow, Span, cut
from sgnray.prepare.clip import FRAMES_PER_S, Poses
from sgnray.prepare.plan import hash_lines

# Recordings per part, which is repeated after a kill and sent to a worker as a whole.
PART_RECORDINGS = 32
_BLOCK_CLIPS = 32
_DIGEST = 16  # characters of a digest

# Recordings or windows of a part in lists, then the part itself.
_Blocks = Generator[list[Sample | Skipped] | PredictionPart, None, None]


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
            content |= self.span.to_dict()
        return content


# A list for each part of the recordings.
Results = Generator[list[Prediction | Skipped], None, None]


def predict_clips(
    sources: Path | str | Sequence[Path | str],
    checkpoint: Path | str | TrainedModel | None = None,
    *,
    runs_dir: Runs = Path("runs"),
    clips: Sequence[str] = (),
    skip_bad_paths: bool = False,
    class_names: tuple[str, ...] | None = None,
    num_views: int | None = None,
    num_guesses: int = 5,
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    workers: int = 0,
    address: str | None = None,
    request: WorkerRequest | None = None,
) -> PredictionPlan:
    """Recognize raw recordings (files, folders, .zip files), or clips of a prepared dataset.

    Each source is a path or a URI that pyarrow.fs knows.
    `checkpoint` is a run, a checkpoint, the reference's .pth or a model that is loaded already; the
    default is the newest run.
    With `window`, each window of that many frames gives one prediction, and there is a window every
    `stride` frames (default: half a window); `fps` is the frame rate of the recordings, 30 by
    default, which turns frames into seconds. A recording that cannot be used is yielded as
    Skipped, with its reason, and so is a window without a result. `skip_bad_paths` also yields a
    path that has no usable recording as Skipped, instead of an immediate error.
    bf16 is two to three times as fast if supported by the hardware, and changes the third digit of
    probabilities; auto uses it if supported. `workers` spreads the recordings over Ray actors,
    which must have access to the raw files; 0 needs no Ray. `request` is what each actor requests.
    Raises UsageError, InputError and CheckpointError immediately. Iterating runs the model, and
    may raise ClusterError, or CheckpointError for a model without finite results.
    """
    check_device_name(device)
    check_counts(num_views, num_guesses)
    if not workers:
        check_without_ray(address, request)
        choose_device(device)
    if not isinstance(checkpoint, TrainedModel):
        checkpoint = load_trained_model(checkpoint, runs_dir=runs_dir)
    model = checkpoint.named(class_names)
    if isinstance(model.model, OnnxModel):
        if precision == "bf16":
            raise UsageError(
                "the precision of an ONNX file is fixed",
                where="--precision bf16",
                now="leave it out, or name the run that the file was exported from",
            )
        precision = "float32"
    sliding = _sliding_window(window, stride, fps)
    paths = [sources] if isinstance(sources, Path | str) else list(sources)
    found = find_sources(paths, model.card.skeleton, clips, skip_bad_paths=skip_bad_paths)
    return PredictionPlan(
        sources=tuple(found),
        model=model,
        num_views=num_views or model.card.num_views,
        num_guesses=num_guesses,
        sliding=sliding,
        precision=precision,
        device=device,
        workers=workers,
        address=address,
        request=request,
    )


@dataclass(frozen=True, eq=False)
class PredictionPlan:
    """The recordings to recognize, the model and its options, and where to run it.

    Each iteration recognizes all of them, in order.
    """

    sources: tuple[Source, ...]
    model: TrainedModel
    num_views: int
    num_guesses: int
    sliding: SlidingWindow | None
    precision: Precision
    device: str
    workers: int
    address: str | None
    request: WorkerRequest | None

    def __iter__(self) -> Iterator[Prediction | Skipped]:
        return itertools.chain.from_iterable(self.run())

    @property
    def num_recordings(self) -> int:
        """Number of recordings, including those that will be skipped."""
        return sum(map(len, self.sources))

    def resolved(self) -> PredictionPlan:
        """Replace the precision `auto` by one for all recordings and workers.

        With workers, it depends on their hardware: may wait for a node.
        """
        if self.precision != "auto":
            return self
        device, precision = resolve_for_workers(
            self.device, self.address, self.workers, self.request
        )
        return replace(self, device=device, precision=precision)

    def describe(self) -> dict[str, str | float | None]:
        """Return everything that affects the predictions, under the names that users know.

        The plan must be `resolved`.
        """
        card = self.model.card
        rate = self.sliding.frames_per_s if self.sliding else FRAMES_PER_S
        weights = hashlib.sha256()
        for tensor in self.model.model.state_dict().values():
            weights.update(tensor.cpu().numpy().tobytes())
        recordings = hash_lines(source.stamp for source in self.sources)
        return {
            "recordings": recordings[:_DIGEST],
            "model": weights.hexdigest()[:_DIGEST],
            "--runtime": "onnx" if isinstance(self.model.model, OnnxModel) else "torch",
            "classes": hash_lines(card.class_names)[:_DIGEST],
            "--views": self.num_views,
            "turned by": card.turn_rad or None,
            "windows": None if card.windows == "paper" else card.windows,
            "--top": self.num_guesses,
            "--window": self.sliding.size if self.sliding else None,
            "--stride": self.sliding.stride if self.sliding else None,
            "--fps": None if rate == FRAMES_PER_S else f"{rate:.12g}",
            "--precision": self.precision,
        }

    def run(self, *, num_done: int = 0, on_progress: OnProgress = ignore_progress) -> Results:
        """Yield the predictions of each of the `parts`, in their order.

        `on_progress` is called with the recordings done and their total.
        """
        plan, total = self.resolved(), self.num_recordings

        def on_done(part: PredictionPart) -> None:
            nonlocal num_done
            num_done += len(part)
            on_progress(num_done, total)

        parts = self.parts(num_done)
        if not self.workers:
            return plan._run(parts, choose_device(self.device), on_done)
        return run_on_actors(
            replace(plan, sources=())._run_part,
            # A worker reads recordings and tables itself, but may not have the dataset.
            (tuple(part.read()) if isinstance(part, DatasetSource) else part for part in parts),
            workers=self.workers,
            address=self.address,
            now="rerun the command; with --out it continues where it stopped",
            device=plan.device,
            request=self.request,
            on_done=on_done,
        )

    def parts(self, num_done: int = 0) -> Iterator[Source]:
        """Cut the recordings after the first `num_done` into parts."""
        step = PART_RECORDINGS if self.sliding is None else 1  # windows may be many
        for source in self.sources:
            begin = min(num_done, len(source))
            num_done -= begin
            for first in range(begin, len(source), step):
                yield source.part(first, first + step)

    def _run(
        self,
        parts: Iterable[PredictionPart],
        device: torch.device,
        on_done: Callable[[PredictionPart], None],
    ) -> Results:
        """Yield a list of predictions for each part, after calling `on_done` with it."""
        assert self.precision != "auto"
        keep_freed_memory()
        self.model.model.to(device)
        results: list[Prediction | Skipped] = []
        with closing(_read_ahead(self._blocks(parts))) as blocks, explained_gpu_memory():
            for block in blocks:
                if isinstance(block, list):
                    results += self._recognize(block)
                    continue
                on_done(block)  # the part
                yield results
                results = []

    def _run_part(self, part: PredictionPart, device: str) -> list[Prediction | Skipped]:
        """Recognize one part, in a worker."""
        (results,) = self._run([part], torch.device(device), lambda _: None)
        return results

    def _recognize(self, block: Sequence[Sample | Skipped]) -> Iterator[Prediction | Skipped]:
        poses = [item.poses for item in block if isinstance(item, Sample)]
        guesses = iter(
            recognize_each(
                self.model,
                poses,
                num_views=self.num_views,
                num_guesses=self.num_guesses,
                in_bf16=self.precision == "bf16",
            )
        )
        for item in block:
            if isinstance(item, Skipped):
                yield item
                continue
            found, span = next(guesses), item.span
            if not isinstance(found, ClipError):
                yield Prediction(item.clip, item.place, len(item.poses.bodies), found, span)
            elif span is None:
                yield Skipped(item.clip, found.what, item.place)
            else:
                yield SkippedWindow(item.clip, found.what, item.place, span=span)

    def _blocks(self, parts: Iterable[PredictionPart]) -> _Blocks:
        """Yield the clips of each part in blocks, and the part at its end."""
        for part in parts:
            clips = self._clips(part)
            while block := list(itertools.islice(clips, _BLOCK_CLIPS)):
                yield block
            yield part

    def _clips(self, part: PredictionPart) -> Iterator[Sample | Skipped]:
        """Yield recordings, or the windows of each."""
        skeleton = self.model.card.skeleton
        for item in part if isinstance(part, tuple) else part.read():
            if self.sliding is None or isinstance(item, Skipped):
                yield item
                continue
            try:
                for span in self.sliding.spans(item.poses):
                    poses = cut(item.poses, span, skeleton)
                    if poses is not None:
                        yield replace(item, poses=poses, span=span)
            except ClipError as error:
                yield Skipped(item.clip, error.what, item.place)


def recognize_each(
    model: TrainedModel,
    clips: Sequence[Poses],
    *,
    num_views: int | None = None,
    num_guesses: int = 5,
    in_bf16: bool = False,
) -> list[tuple[Guess, ...] | ClipError]:
    """Recognize clips as `TrainedModel.recognize` does, with a ClipError for one without a result.

    Raises CheckpointError if the model gives no finite result even for poses of zeros.
    """
    options: Any = {"num_views": num_views, "num_guesses": num_guesses, "in_bf16": in_bf16}

    def recognize_one(clip: Poses) -> tuple[Guess, ...] | ClipError:
        try:
            return model.recognize_one(clip, **options)
        except ClipError as error:
            return error

    try:
        return [*model.recognize(clips, **options)] if clips else []
    except CheckpointError:
        return [recognize_one(clip) for clip in clips]


def _read_ahead(blocks: _Blocks) -> _Blocks:
    """Read the next two blocks while one is recognized: every other one may just end a part.

    If it is closed early, it waits for the block that is being read.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sgn-reader") as reader:
        coming = deque(reader.submit(next, blocks, None) for _ in range(2))
        try:
            while (block := coming.popleft().result()) is not None:
                coming.append(reader.submit(next, blocks, None))
                yield block
        finally:
            reader.shutdown(cancel_futures=True)
            blocks.close()


def _sliding_window(
    window: int | None, stride: int | None, fps: float | None
) -> SlidingWindow | None:
    if window is None:
        for what, name, value in (("stride", "--stride", stride), ("frame rate", "--fps", fps)):
            if value is not None:
                raise UsageError(
                    f"a {what} needs a window", where=f"{name} {value}", now="add --window"
                )
        return None
    stride = max(1, window // 2) if stride is None else stride
    return SlidingWindow(window, stride, FRAMES_PER_S if fps is None else fps)
