"""The likeliest actions of recordings: read in one thread, recognized in blocks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sgnray.checkpoints.run_folder import Runs
from sgnray.checkpoints.trained_model import Guess, TrainedModel, load_trained_model
from sgnray.data.skeleton import Skeleton
from sgnray.distributed.device import Precision, choose_device, choose_precision, keep_freed_memory
from sgnray.errors import UsageError
from sgnray.predict.sources import Sample, Source, find_sources
from sgnray.predict.windows import SlidingWindow, Span, cut
from sgnray.prepare.clip import Poses, Skipped
from sgnray.progress import OnProgress

_BLOCK_CLIPS = 32

# One recording or window, with the number of recordings read so far.
_Numbered = tuple[int, Sample | Skipped]


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
    checkpoint: Path | str | TrainedModel | None = None,
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
    on_progress: OnProgress | None = None,
) -> Iterator[Prediction | Skipped]:
    """Recognize raw recordings (files, folders, .zip files), or clips of a prepared dataset.

    `checkpoint` is a run, a checkpoint, the reference's .pth or a model that is loaded already; the
    default is the newest run.
    With a `window` of so many frames, one every `stride` frames (default: half a window), each
    window of a recording gives one prediction. A recording that cannot be used is yielded as
    Skipped, with its reason. bf16 is several times faster where the hardware has it, and changes
    probabilities in their third digit; auto uses it there. Neither Ray nor a dataset is needed.
    Raises UsageError, InputError and CheckpointError immediately, before the first prediction.
    """
    torch_device = choose_device(device)
    if not isinstance(checkpoint, TrainedModel):
        checkpoint = load_trained_model(checkpoint, runs_dir=runs_dir)
    model = checkpoint.named(class_names)
    skeleton = model.require_skeleton()
    paths = [sources] if isinstance(sources, Path) else list(sources)
    found = find_sources(paths, skeleton, clips)
    keep_freed_memory()
    model.model.to(torch_device)
    recognize = partial(
        model.recognize,
        num_views=num_views,
        num_guesses=num_guesses,
        in_bf16=choose_precision(precision, torch_device.type) == "bf16",
    )
    sliding = _sliding_window(window, stride)
    return _predict(recognize, found, sliding, skeleton, on_progress)


def _predict(
    recognize: Callable[[Sequence[Poses]], list[tuple[Guess, ...]]],
    sources: Sequence[Source],
    sliding: SlidingWindow | None,
    skeleton: Skeleton,
    on_progress: OnProgress | None,
) -> Iterator[Prediction | Skipped]:
    total = sum(map(len, sources))
    recordings = itertools.chain.from_iterable(source.read() for source in sources)
    for block in _read_ahead(_blocks(_number(recordings, sliding, skeleton))):
        poses = [item.poses for _, item in block if isinstance(item, Sample)]
        guesses = iter(recognize(poses) if poses else ())
        for _, item in block:
            if isinstance(item, Skipped):
                yield item
                continue
            num_poses = len(item.poses.bodies)
            yield Prediction(item.clip, item.place, num_poses, next(guesses), item.span)
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
