"""The import path of the checkpoint readers for other projects."""

from sgnray.checkpoints.checkpoint import load_checkpoint, load_reference

__all__ = ["load_checkpoint", "load_reference"]
