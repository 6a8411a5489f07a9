"""Trained models for other programs: ONNX, torch.export, safetensors."""

from sgnray.export.formats import FORMATS
from sgnray.export.model import Exported, export_model

__all__ = ["FORMATS", "Exported", "export_model"]
