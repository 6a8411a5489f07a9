"""Actions recognized in raw recordings, in clips of a dataset, or in a stream of frames."""

from sgnray.checkpoints.trained_model import Guess
from sgnray.predict.clips import Prediction, predict_clips
from sgnray.predict.sources import refuse_skipped
from sgnray.predict.stream import Stream, predict_lines

__all__ = ["Guess", "Prediction", "Stream", "predict_clips", "predict_lines", "refuse_skipped"]
