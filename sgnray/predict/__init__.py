"""Actions recognized in raw recordings, in clips of a dataset, or in a stream of frames."""

from sgnray.checkpoints.trained_model import Guess
from sgnray.predict.clips import Prediction, predict_clips, recognize_each
from sgnray.predict.sources import read_clip, refuse_skipped
from sgnray.predict.stream import Stream, predict_lines
from sgnray.predict.windows import SkippedWindow
from sgnray.predict.write import build_table, check_out, write_predictions
from sgnray.prepare.readers.pixels import meters_per_pixel

__all__ = [
    "Guess",
    "Prediction",
    "SkippedWindow",
    "Stream",
    "build_table",
    "check_out",
    "meters_per_pixel",
    "predict_clips",
    "predict_lines",
    "read_clip",
    "recognize_each",
    "refuse_skipped",
    "write_predictions",
]
