"""Hyperparameter search with Ray Tune; Ray is imported by the first search."""

from sgnray.tune.final import train_final
from sgnray.tune.search import TuneResult, tune_recipe
from sgnray.tune.state.trials import TrialRow
from sgnray.tune.trial.resources import TrialResources

__all__ = ["TrialResources", "TrialRow", "TuneResult", "train_final", "tune_recipe"]
