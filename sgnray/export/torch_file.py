"""A model as a .pt2 file of torch.export: a graph that runs without this package's code.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sgnray.checkpoints.model_card import KEY
from sgnray.checkpoints.trained_model import TrainedModel


def write_torch(path: Path, trained_model: TrainedModel) -> None:
    """Write the file; its description lies beside the graph, as <KEY>.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = torch.export.export(
            trained_model.model,
            (example_clips(trained_model),),
            dynamic_shapes={"joints_BTVC": {0: torch.export.Dim("clips")}},
        )
        extra = {f"{KEY}.json": trained_model.describe().to_json()}
        torch.export.save(program, path, extra_files=extra)


def example_clips(trained_model: TrainedModel) -> Tensor:
    """Return clips of the model's shape, two of them: one would be taken for the only number."""
    model = trained_model.model
    return torch.zeros(2, model.num_frames, model.num_joints, model.num_coordinates)


def open_torch(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a file that was just written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()
    run: Callable[[Tensor], Tensor] = torch.no_grad()(module)
    return run
