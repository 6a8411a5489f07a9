"""Hyperparameter search with Ray Tune; Ray is imported by the first search."""

from sgnray.tune.board import TrialRow
from sgnray.tune.search import TuneResult, tune_recipe

__all__ = ["TrialRow", "TuneResult", "tune_recipe"]
