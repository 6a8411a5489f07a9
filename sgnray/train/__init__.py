"""Training: a plain torch loop, and its launch over Ray."""

from sgnray.train.loop import EpochResult
from sgnray.train.run import RunResult, train_run
from sgnray.train.seeds import SeedScore, SeedsReport, train_seeds

__all__ = ["EpochResult", "RunResult", "SeedScore", "SeedsReport", "train_run", "train_seeds"]
