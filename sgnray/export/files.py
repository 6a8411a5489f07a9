"""The file formats of an export: written with the model card, and read back to compare.

Those that hold weights only are written and read by functions of `checkpoints/model_files.py`.
Legend: B clips, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sgnray.checkpoints.model_card import KEY
from sgnray.checkpoints.model_files import MODEL_FORMATS
from sgnray.checkpoints.onnx_model import ComputeLogits, open_session, run_session
from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.errors import SgnError, UsageError, first_line, import_extra

# The suffix of each format, by the name in --to.
FORMATS: dict[str, str] = {name: known.suffix for name, known in MODEL_FORMATS.items()}
DEFAULT_OPSET = 18  # the one that torch's exporter writes; it converts to later ones


def write_and_open(path: Path, trained_model: TrainedModel, to: str, opset: int) -> ComputeLogits:
    """Write one of FORMATS, and return a function that runs the file in its own runtime."""
    if to == "onnx":
        write_onnx(path, trained_model, opset=opset)
        return open_onnx(path, opset=opset)
    if to == "torch":
        _write_torch(path, trained_model)
        return _open_torch(path)
    known = next(each for name, each in MODEL_FORMATS.items() if name == to)
    assert known.write_weights is not None
    assert known.read is not None
    known.write_weights(path, trained_model.model.state_dict(), trained_model.card)
    return known.read(path)[0]


def write_onnx(path: Path, trained_model: TrainedModel, *, opset: int) -> None:
    """Write ONNX for any number of clips; UsageError for an opset that onnx does not support."""
    onnx = import_extra("onnx", extra="export")
    import_extra("onnxscript", extra="export")
    newest = onnx.defs.onnx_opset_version()
    if not DEFAULT_OPSET <= opset <= newest:
        raise UsageError(
            f"cannot export to opset {opset}",
            where=f"--opset {opset}",
            now=f"onnx {onnx.__version__} supports {DEFAULT_OPSET} to {newest}",
        )
    with _quiet():
        program = torch.onnx.export(
            trained_model.model,
            (_example_clips(trained_model),),
            dynamo=True,
            dynamic_shapes={"joints_BTVC": {0: torch.export.Dim("clips")}},
            input_names=["joints"],
            output_names=["logits"],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        # Paths on this machine: from another one, the same model would get another file.
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    program.model.metadata_props[KEY] = trained_model.card.to_json()
    program.save(path, external_data=False)


def quantize_onnx(path: Path) -> None:
    """Convert the weights of an ONNX file to 8 bits, in place.

    Activations are rounded at run time with one scale per batch, so the other clips of a batch
    change a clip's logits by a few hundredths.
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


def open_onnx(path: Path, *, opset: int) -> ComputeLogits:
    """Load an ONNX file with onnxruntime; UsageError for an opset that it does not support."""
    runtime = import_extra("onnxruntime", extra="export")
    try:
        return run_session(open_session(path))
    except Exception as error:  # onnxruntime's exceptions are private
        if opset <= DEFAULT_OPSET:
            raise SgnError(
                f"onnxruntime cannot load the file: {first_line(error)}",
                where=f"onnxruntime {runtime.__version__}",
                now="install another version of it, or export with --to torch",
            ) from error
        raise UsageError(
            f"onnxruntime {runtime.__version__} does not run opset {opset}: {first_line(error)}",
            where=f"--opset {opset}",
            now=f"choose a lower one; {DEFAULT_OPSET} is the default",
        ) from error


def _write_torch(path: Path, trained_model: TrainedModel) -> None:
    """Write a torch.export file, which runs without sgnray; it has the model card as <KEY>.json."""
    with _quiet():
        program = torch.export.export(
            trained_model.model,
            (_example_clips(trained_model),),
            dynamic_shapes={"joints_BTVC": {0: torch.export.Dim("clips")}},
        )
        extra = {f"{KEY}.json": trained_model.card.to_json()}
        written = io.BytesIO()  # on a full disk, torch's own writer of files aborts the process
        torch.export.save(program, written, extra_files=extra)
    path.write_bytes(written.getbuffer())


def _open_torch(path: Path) -> ComputeLogits:
    with _quiet():
        module = torch.export.load(path).module()
    run: ComputeLogits = torch.no_grad()(module)
    return run


def _example_clips(trained_model: TrainedModel) -> Tensor:
    """Return two clips of the model's shape: with one, the exporter would fix the batch size."""
    return torch.zeros(2, *trained_model.require_sgn().clip_shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress output of the exporters that does not concern SGN."""
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
