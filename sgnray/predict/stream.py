"""Recognize actions in a stream of frames while it arrives.

Legend: M people, V joints, C coordinates.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.trained_model import Guess, TrainedModel, check_counts, load_trained_model
from sgnray.data.store import FloatArray
from sgnray.distributed.device import choose_device
from sgnray.errors import InputError, count_of
from sgnray.predict.windows import SlidingWindow
from sgnray.prepare.in_memory import (
    VIDEO_FIRST,
    arrange_frame,
    fill_joints,
    list_clip,
    parse_frames,
    warn_upside_down,
)

log = logging.getLogger(__name__)

DEFAULT_WINDOW, DEFAULT_STRIDE = 60, 15  # two seconds, twice a second, at Kinect's 30 frames/s


class Stream:
    """A stream of frames that gives a prediction on the last `window` every `stride` frames.

    A prediction equals that of `TrainedModel.predict` on those frames, after missing joints are
    filled in as in recordings. Only the last `window` frames are kept, so that memory and time per
    frame stay the same.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        window: int = DEFAULT_WINDOW,
        stride: int = DEFAULT_STRIDE,
        num_views: int | None = None,
        num_guesses: int = 5,
    ) -> None:
        check_counts(num_views, num_guesses)
        self._window = SlidingWindow(window, stride)
        self.num_frames = 0
        self._model = model
        self._skeleton = model.card.skeleton
        self._num_views = num_views
        self._num_guesses = num_guesses
        self._has_warned = False
        self._frames: deque[FloatArray] = deque(maxlen=window)

    def add(self, joints: npt.ArrayLike | None) -> tuple[Guess, ...] | None:
        """Add the next frame, (V, C) or (M, V, C), None or empty if no person is in it.

        A joint with a NaN is missing; in lists, None may take the place of a coordinate, a joint or
        a person. Returns the likeliest actions, empty if the whole window has no person; None
        between two predictions. InputError for a frame that cannot be used, which is not counted,
        and for a window without a finite result, which is left out.
        """
        where = f"frame {self.num_frames + 1} of the stream"
        self._frames.append(arrange_frame(joints, self._skeleton, where=where))
        self.num_frames += 1
        if self.num_frames % self._window.stride:
            return None
        frames_TMVC = np.stack(self._frames)
        if np.isnan(frames_TMVC).all():
            return ()
        try:
            filled_TMVC = fill_joints(frames_TMVC)
            if not self._has_warned:
                self._has_warned = warn_upside_down(filled_TMVC, self._skeleton)
            poses = list_clip(filled_TMVC, self._skeleton, warns_upside_down=False)
            return self._model.recognize_one(
                poses, num_views=self._num_views, num_guesses=self._num_guesses
            )
        except InputError as error:
            self._frames.clear()  # else the next windows would fail, too
            frames = count_of(len(frames_TMVC), "frame")
            where = f"the {frames} up to frame {self.num_frames} of the stream"
            raise InputError(error.what, where=where, now=error.now) from error


def predict_lines(
    lines: Iterable[bytes],
    checkpoint: Path | str | TrainedModel | None = None,
    *,
    runs_dir: Runs = Path("runs"),
    class_names: tuple[str, ...] | None = None,
    num_views: int | None = None,
    num_guesses: int = 5,
    window: int = DEFAULT_WINDOW,
    stride: int = DEFAULT_STRIDE,
    device: str = "auto",
) -> Iterator[dict[str, Any]]:
    """Recognize a stream of frames in JSON, one on each line, as `sgn predict --live` does.

    A line is a frame as `Stream.add` takes it, null or empty without a person. Each prediction is
    yielded as plain data, before the next line is read: the number of `frame`s so far and the
    `guesses`. Raises InputError with the number of a line that cannot be used.
    """
    if not isinstance(checkpoint, TrainedModel):
        checkpoint = load_trained_model(checkpoint, runs_dir=runs_dir)
    model = checkpoint.named(class_names)
    model.model.to(choose_device(device))
    stream = Stream(
        model, window=window, stride=stride, num_views=num_views, num_guesses=num_guesses
    )
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of the stream"
        try:
            guesses = stream.add(parse_frames(line) if line.strip() else None)
        except InputError as error:
            place = where if error.where.startswith("frame ") else error.where  # of a window
            raise InputError(error.what, where=place, now=error.now) from error
        except (RecursionError, ValueError) as error:
            now = "write each frame as one line of JSON: its joints, or null if no person is in it"
            now += f"; {VIDEO_FIRST}" if isinstance(error, UnicodeError) else ""
            raise InputError(f"this is not JSON: {error}", where=where, now=now) from error
        if guesses is not None:
            yield {"frame": number, "guesses": [vars(guess) for guess in guesses]}
    if stream.num_frames < stride:
        log.warning(
            "the stream ended at frame %d; the first prediction is at frame %d",
            stream.num_frames,
            stride,
        )
