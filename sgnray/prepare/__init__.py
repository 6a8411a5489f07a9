"""Raw recordings to one Arrow dataset."""

from sgnray.data.skipped import Skipped
from sgnray.prepare.dataset import PrepareResult, prepare_dataset

__all__ = ["PrepareResult", "Skipped", "prepare_dataset"]
