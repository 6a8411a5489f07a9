"""Trained models in the formats of other programs."""

from sgnray.export.files import FORMATS
from sgnray.export.model import Exported, export_model

__all__ = ["FORMATS", "Exported", "export_model"]
