"""A model as a .pt2 file of torch.export: a graph that runs without this package's code.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sgnray.description import KEY
from sgnray.recogniser import Recogniser


def write_torch(path: Path, recogniser: Recogniser, clips_BTVC: Tensor) -> None:
    """Write the file; its description lies beside the graph, as <KEY>.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = torch.export.export(
            recogniser.model,
            (clips_BTVC[:2],),
            dynamic_shapes={"joints_BTVC": {0: torch.export.Dim("clips")}},
        )
        extra = {f"{KEY}.json": recogniser.describe().to_json()}
        torch.export.save(program, path, extra_files=extra)


def open_torch(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a file that was just written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()
    run: Callable[[Tensor], Tensor] = torch.no_grad()(module)
    return run
