"""Where other projects import the readers of checkpoints from."""

from sgnray.checkpoints.checkpoint import load_checkpoint, load_reference

__all__ = ["load_checkpoint", "load_reference"]
