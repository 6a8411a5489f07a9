"""Training: a plain torch loop, and its launch over Ray."""

from sgnray.train.loop import EpochResult
from sgnray.train.run import RunResult, train_run

__all__ = ["EpochResult", "RunResult", "train_run"]
