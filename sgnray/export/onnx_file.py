"""A model as ONNX, with any number of clips, and what its runtime makes of it.

Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from sgnray.checkpoints.model_card import KEY
from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.errors import UsageError, import_extra
from sgnray.export.torch_file import example_clips

DEFAULT_OPSET = 18  # what torch's exporter writes; later ones are converted from it


def write_onnx(path: Path, trained_model: TrainedModel, *, opset: int) -> None:
    """Write the file; UsageError for an opset that onnx does not have."""
    onnx = import_extra("onnx", extra="export")
    import_extra("onnxscript", extra="export")
    newest = onnx.defs.onnx_opset_version()
    if not DEFAULT_OPSET <= opset <= newest:
        raise UsageError(
            f"there is no opset {opset} to export to",
            where=f"--opset {opset}",
            now=f"onnx {onnx.__version__} takes {DEFAULT_OPSET} to {newest}",
        )
    with _quiet():
        program = torch.onnx.export(
            trained_model.model,
            (example_clips(trained_model),),
            dynamo=True,
            dynamic_shapes={"joints_BTVC": {0: torch.export.Dim("clips")}},
            input_names=["joints"],
            output_names=["logits"],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[KEY] = trained_model.describe().to_json()
    program.save(path, external_data=False)


def quantize_onnx(path: Path) -> None:
    """Keep the weights of a file in 8 bits, in place.

    The inputs of products are rounded as they come, with one scale for a whole batch: so what is
    recognized with a clip changes its logits, by some hundredths.
    """
    quantization = import_extra("onnxruntime.quantization", extra="export")
    prepared = path.with_name(f"{path.name}.prepared")
    try:
        with _quiet():
            quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
            weight_type = quantization.QuantType.QInt8
            quantization.quantize_dynamic(prepared, path, weight_type=weight_type)
    finally:
        prepared.unlink(missing_ok=True)


def open_onnx(path: Path, *, opset: int) -> Callable[[Tensor], Tensor]:
    """Return the function that the runtime makes of a file; UsageError for an unknown opset."""
    runtime = import_extra("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes are private
        raise UsageError(
            f"onnxruntime {runtime.__version__} does not run opset {opset}: {_first(error)}",
            where=f"--opset {opset}",
            now=f"ask for a lower one; {DEFAULT_OPSET} is the default",
        ) from error

    def run(joints_BTVC: Tensor) -> Tensor:
        (logits_BK,) = session.run(["logits"], {"joints": joints_BTVC.numpy()})
        return torch.from_numpy(logits_BK)

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' talk of what does not concern SGN off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
