"""From raw skeletons to a trained SGN action recognizer, on one machine or a Ray cluster.

The names below are the public library; each imports what it needs, such as torch, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = {
    "SGN": "sgnray.model",
    "Recipe": "sgnray.config",
    "SgnError": "sgnray.errors",
    "Stream": "sgnray.predict",
    "TrainedModel": "sgnray.checkpoints.trained_model",
    "evaluate_run": "sgnray.evaluate",
    "export_model": "sgnray.export",
    "load_checkpoint": "sgnray.checkpoints.checkpoint",
    "load_recipe": "sgnray.config",
    "load_reference": "sgnray.checkpoints.checkpoint",
    "load_trained_model": "sgnray.checkpoints.trained_model",
    "open_dataset": "sgnray.data.store",
    "predict_clips": "sgnray.predict",
    "prepare_dataset": "sgnray.prepare",
    "train_run": "sgnray.train",
    "tune_recipe": "sgnray.tune",
    "view_clip": "sgnray.view",
}

# Type checkers cannot read a computed __all__; for them, `as` marks each export.
if TYPE_CHECKING:
    from sgnray.checkpoints.checkpoint import load_checkpoint as load_checkpoint
    from sgnray.checkpoints.checkpoint import load_reference as load_reference
    from sgnray.checkpoints.trained_model import TrainedModel as TrainedModel
    from sgnray.checkpoints.trained_model import load_trained_model as load_trained_model
    from sgnray.config import Recipe as Recipe
    from sgnray.config import load_recipe as load_recipe
    from sgnray.data.store import open_dataset as open_dataset
    from sgnray.errors import SgnError as SgnError
    from sgnray.evaluate import evaluate_run as evaluate_run
    from sgnray.export import export_model as export_model
    from sgnray.model import SGN as SGN
    from sgnray.predict import Stream as Stream
    from sgnray.predict import predict_clips as predict_clips
    from sgnray.prepare import prepare_dataset as prepare_dataset
    from sgnray.train import train_run as train_run
    from sgnray.tune import tune_recipe as tune_recipe
    from sgnray.view import view_clip as view_clip
else:
    __all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'sgnray' has no attribute '{name}'")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_MODULES)
