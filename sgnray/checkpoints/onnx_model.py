"""An ONNX file as a model: onnxruntime computes its logits on the CPU.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.model_card import KEY, ModelCard, reading
from sgnray.errors import import_extra

# From joints (B, T, V, C) to logits (B, K).
ComputeLogits = Callable[[Tensor], Tensor]


class OnnxModel(torch.nn.Module):
    """Takes the same joints as an SGN, and returns the logits of an ONNX file.

    The content of the file is its only buffer, so that it is hashed and pickled like weights.
    """

    file: Tensor

    def __init__(self, content: bytes, card: ModelCard) -> None:
        super().__init__()
        self.num_classes, self.num_frames = card.num_classes, card.num_frames
        self.num_joints = card.skeleton.num_joints
        self.num_coordinates = card.skeleton.num_coordinates
        self.register_buffer("file", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._run: ComputeLogits | None = None

    def forward(self, joints_BTVC: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        if self._run is None:
            self._run = run_session(open_session(self.file.cpu().numpy().tobytes()))
        return self._run(joints_BTVC.cpu()).to(joints_BTVC.device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which cannot be pickled."""
        return {**self.__dict__, "_run": None}


def read_onnx(path: Path) -> tuple[OnnxModel, ModelCard]:
    """Read a file that `sgn export` wrote, and try it on zeros; raises CheckpointError."""
    import_extra("onnxruntime", extra="export")
    content = path.read_bytes()
    with reading("the file cannot be used", path, now="export it again: sgn export"):
        metadata = open_session(content).get_modelmeta().custom_metadata_map
        card = ModelCard.from_json(metadata.get(KEY))
        model = OnnxModel(content, card)
        shape = (1, model.num_frames, model.num_joints, model.num_coordinates)
        if model(torch.zeros(shape)).shape != (1, model.num_classes):
            raise ValueError("its logits do not have the shape in its description")
    return model, card


def open_session(source: Path | bytes) -> Any:
    """Open an ONNX file with onnxruntime, on as many threads as torch uses."""
    runtime = import_extra("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(session: Any) -> ComputeLogits:
    """Return a function from joints (B, T, V, C) on the CPU to logits (B, K)."""

    def run(joints_BTVC: Tensor) -> Tensor:
        joints = np.ascontiguousarray(joints_BTVC.numpy(), dtype=np.float32)
        (logits_BK,) = session.run(["logits"], {"joints": joints})
        return torch.from_numpy(logits_BK)

    return run
