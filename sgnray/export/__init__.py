"""Trained models for other programs: ONNX, torch.export, safetensors."""

from sgnray.export.model import FORMATS, Exported, export_model

__all__ = ["FORMATS", "Exported", "export_model"]
