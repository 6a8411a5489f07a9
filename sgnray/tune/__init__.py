"""Hyperparameter search with Ray Tune; Ray is imported by the first search."""

from sgnray.tune.final import train_final
from sgnray.tune.search import TuneResult, tune_recipe
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import TrialRow

__all__ = ["TrialResources", "TrialRow", "TuneResult", "train_final", "tune_recipe"]
