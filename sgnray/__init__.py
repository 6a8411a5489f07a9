"""From raw skeletons to a trained SGN action recognizer, on one machine or a Ray cluster.

The names below are the public library; each imports what it needs, such as torch, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgnray.checkpoints.checkpoint import load_checkpoint, load_reference
    from sgnray.checkpoints.trained_model import load_trained_model
    from sgnray.config import Recipe, load_recipe
    from sgnray.data.store import open_dataset
    from sgnray.errors import SgnError
    from sgnray.evaluate import evaluate_run
    from sgnray.export import export_model
    from sgnray.model import SGN
    from sgnray.predict import Stream, predict_clips
    from sgnray.prepare import prepare_dataset
    from sgnray.train import train_run
    from sgnray.tune import tune_recipe
    from sgnray.view import view_clip

__all__ = [
    "SGN",
    "Recipe",
    "SgnError",
    "Stream",
    "evaluate_run",
    "export_model",
    "load_checkpoint",
    "load_recipe",
    "load_reference",
    "load_trained_model",
    "open_dataset",
    "predict_clips",
    "prepare_dataset",
    "train_run",
    "tune_recipe",
    "view_clip",
]

_HOMES = {
    "SGN": "sgnray.model",
    "Recipe": "sgnray.config",
    "SgnError": "sgnray.errors",
    "Stream": "sgnray.predict",
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


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sgnray' has no attribute '{name}'")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
