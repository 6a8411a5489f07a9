"""Hyperparameter search with Ray Tune; Ray is imported by the first search."""

from sgnray.tune.final import train_final
from sgnray.tune.search import TuneResult, tune_recipe
from sgnray.tune.state.board import TrialRow
from sgnray.tune.trial.resources import Wish

__all__ = ["TrialRow", "TuneResult", "Wish", "train_final", "tune_recipe"]
