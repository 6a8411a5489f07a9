"""Actions recognized in raw recordings or clips of a dataset."""

from sgnray.predict.clips import Guess, Prediction, predict_clips
from sgnray.predict.sources import refuse_skipped

__all__ = ["Guess", "Prediction", "predict_clips", "refuse_skipped"]
