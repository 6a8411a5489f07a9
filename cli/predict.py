"""`sgn predict`: recognize actions in raw recordings, clips of a dataset, or a live stream."""

from __future__ import annotations

import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import RenderableType

from sgnray.checkpoints.model_files import MODEL_FORMATS, describe_loadable
from sgnray.errors import EmptyError, SgnError, UsageError

from . import options, render
from .choices import choose_run, read_class_list
from .tables import SafeTable, make_table, spaced

if TYPE_CHECKING:
    from sgnray.checkpoints.trained_model import TrainedModel
    from sgnray.data.skipped import Skipped
    from sgnray.predict import Prediction
    from sgnray.predict.clips import PredictionPlan

# Recordings times views from which the time saved exceeds that of exporting the model, about 6 s.
_MANY_VIEWS = 10_000
_MAX_TABLES = 3  # more clips than this get one line each
_BAR_WIDTH = 20
_LONGEST_LINE = 2**20  # bytes of a frame; a longer line is cut there, and refused


def predict(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Recordings of a sensor or a pose estimator, folders or .zip files of them, a "
            "table of clips of your own skeleton, or the folder of a prepared dataset; as paths or "
            "URIs like s3://bucket/folder.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|CHECKPOINT",
            help="A run folder, a checkpoint, an official .pth, or an exported "
            f"{describe_loadable()}. Default: the newest run.",
        ),
    ] = None,
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A clip of the dataset; may be repeated."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Read frames from stdin, one JSON list of joints on each line, and print the "
            "most likely actions of the last frames as JSON lines.",
        ),
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many actions to print for each clip.")
    ] = 5,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="FRAMES",
            help="Slide a window of this many frames over each recording, and show a timeline. "
            "With --live the default is 60.",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="FRAMES",
            help="Frames between two windows. Default: half a window; with --live, 15.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="NUMBER",
            help="Frames per second of the recordings, for the times of a timeline; with --live, "
            "for the default window of 2 s and stride of 0.5 s. Default: 30, as Kinect has.",
        ),
    ] = None,
    views: options.Views = None,
    classes: options.Classes = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the predictions to a .jsonl or .parquet file as they come. Rerun an "
            "interrupted command to resume it.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    runs: options.Runs = "runs",
    precision: Annotated[
        Literal["auto", "float32", "bf16"],
        typer.Option(
            metavar="auto|float32|bf16",
            help="bf16 is two to three times as fast if the hardware supports it.",
        ),
    ] = "float32",
    runtime: Annotated[
        Literal["auto", "torch", "onnx"],
        typer.Option(
            metavar="auto|torch|onnx",
            help="What runs the model: onnx exports it first, which takes a few seconds, and is "
            "faster on CPUs. auto: onnx, if installed, for 10,000 views and more on CPUs "
            "without --workers; else torch.",
        ),
    ] = "auto",
    workers: options.Workers = 0,
    address: options.Address = None,
    device: options.Device = "auto",
    cpus_per_worker: options.CpusPerWorker = None,
    gpus_per_worker: options.GpusPerWorker = None,
    accelerator_type: options.AcceleratorType = None,
    label: options.Labels = None,
    wait: options.Wait = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Recognize the actions in recordings or a live stream.

    Reads raw files; the dataset that the model was trained on is not needed. Frames in which no
    person is tracked are left out.
    """
    _check_runtime(checkpoint, runtime, precision)
    class_names = read_class_list(classes)
    if live:
        of_ray = (workers, address, cpus_per_worker, gpus_per_worker, accelerator_type, label, wait)
        if any((files, clip, out, overwrite, *of_ray)) or precision != "float32":
            raise UsageError(
                "--live reads frames from stdin, in float32, in this process",
                where="sgn predict --live",
                now="leave out FILE, --clip, --out, --precision and the options of Ray",
            )
        from sgnray.predict import predict_lines

        window, stride = _live_window(window, stride, fps)
        for found in predict_lines(
            _lines_of_stdin(),
            _load_model(checkpoint, runs, runtime),
            class_names=class_names,
            num_views=views,
            num_guesses=top,
            window=window,
            stride=stride,
            device=device,
        ):
            render.as_json(found, indent=None)
        return None
    if not files:
        raise UsageError(
            "the argument FILE is missing",
            where="sgn predict",
            now="see 'sgn predict --help'",
        )
    from sgnray.data.skipped import Skipped
    from sgnray.predict import Prediction, check_out, predict_clips, refuse_skipped

    if out is not None:
        check_out(out, overwrite=overwrite)
    request = options.worker_request(
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        gpu_type=accelerator_type,
        labels=label,
        wait=wait,
    )
    with render.spinner("loading"):
        plan = predict_clips(
            files,
            _load_model(checkpoint, runs, runtime),
            clips=clip or (),
            class_names=class_names,
            num_views=views,
            num_guesses=top,
            window=window,
            stride=stride,
            fps=fps,
            precision=precision,
            device=device,
            workers=workers,
            address=address,
            request=request,
        )
        if (
            runtime == "auto"
            and workers == 0
            and plan.num_recordings * plan.num_views >= _MANY_VIEWS
            and _is_onnx_faster(device, precision)
        ):
            try:
                plan = replace(plan, model=_through_onnx(plan.model))
            except SgnError as error:
                render.warning(f"the model runs in torch, because of onnxruntime: {error.what}")
    if out is not None:
        return _write(plan, out, overwrite=overwrite, json=json, has_windows=window is not None)
    with render.progress("recordings") as on_progress:
        items = list(itertools.chain.from_iterable(plan.run(on_progress=on_progress)))
    predictions = [item for item in items if isinstance(item, Prediction)]
    skipped = [item for item in items if isinstance(item, Skipped)]
    if json:
        render.as_json(
            {
                "predictions": [prediction.to_dict() for prediction in predictions],
                "skipped": [_skipped(item) for item in skipped],
            },
            version=1,
        )
    else:
        render.result(*_tables(predictions))
    return refuse_skipped(skipped, num_files=plan.num_recordings)


def _check_runtime(checkpoint: str | None, runtime: str, precision: str) -> None:
    if runtime == "torch" and checkpoint is not None and _is_onnx(checkpoint):
        raise UsageError(
            "an ONNX file runs only in onnxruntime",
            where="--runtime torch",
            now="leave out --runtime, or name the run that the file was exported from",
        )
    if runtime == "onnx" and precision == "bf16":
        raise UsageError(
            "onnxruntime computes in float32",
            where="--runtime onnx --precision bf16",
            now="leave out one of them",
        )


def _is_onnx(path: Path | str) -> bool:
    return str(path).lower().endswith(MODEL_FORMATS["onnx"].suffix)


def _live_window(window: int | None, stride: int | None, fps: float | None) -> tuple[int, int]:
    """Return the window and the stride in frames; those not given follow from the frame rate."""
    from sgnray.predict.stream import DEFAULT_STRIDE, DEFAULT_WINDOW
    from sgnray.prepare.clip import FRAMES_PER_S

    if fps is not None and (not math.isfinite(fps) or (window and stride)):
        raise UsageError(
            "the frame rate sets the window and the stride that are not given",
            where=f"--fps {fps:g}",
            now="give a number, and leave out --window or --stride; or leave out --fps",
        )
    rate = 1.0 if fps is None else fps / FRAMES_PER_S
    return (
        window or max(1, round(rate * DEFAULT_WINDOW)),
        stride or max(1, round(rate * DEFAULT_STRIDE)),
    )


def _skipped(item: Skipped) -> dict[str, Any]:
    from sgnray.predict import SkippedWindow

    span = item.span.to_dict() if isinstance(item, SkippedWindow) else {}
    return {"file": item.name, "place": item.place, "reason": item.reason, **span}


def _load_model(checkpoint: str | None, runs: str, runtime: str) -> TrainedModel:
    """Load the model for a runtime; for onnx, export it to a temporary file first."""
    from sgnray.checkpoints.trained_model import load_trained_model

    model = load_trained_model(choose_run(checkpoint, runs), runs_dir=runs)
    return _through_onnx(model) if runtime == "onnx" else model


def _through_onnx(model: TrainedModel) -> TrainedModel:
    if _is_onnx(model.path):
        return model
    from sgnray.export.model import through_onnx

    render.note("running the model with onnxruntime")
    return through_onnx(model)


def _is_onnx_faster(device: str, precision: str) -> bool:
    """Return whether onnxruntime is installed, and faster than torch on the device."""
    from sgnray.distributed.device import choose_device

    is_installed = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))
    return is_installed and precision == "float32" and choose_device(device).type == "cpu"


def _write(
    plan: PredictionPlan, out: str, *, overwrite: bool, json: bool, has_windows: bool
) -> None:
    from sgnray.predict import write_predictions

    with render.progress("recordings") as on_progress:
        done = write_predictions(plan, out, overwrite=overwrite, on_progress=on_progress)
    if json:
        render.as_json({"out": out, **vars(done)}, version=1)
    else:
        render.result(
            f"{done.num_predictions:,} predictions of {done.num_recordings:,} recordings: {out}"
        )
    if not done.num_predictions:
        raise EmptyError(
            "none of the recordings could be used", where=out, now="read the reasons in it"
        )
    if done.num_skipped:
        skipped = f"{done.num_skipped:,} of {done.num_recordings:,} recordings"
        throughout = " throughout" if has_windows else ""
        render.warning(f"{skipped} could not be used{throughout}; see {out}")


def _lines_of_stdin() -> Iterator[bytes]:
    if sys.stdin is None:  # a shell's <&-
        raise UsageError(
            "stdin is closed", where="sgn predict --live", now="pipe frames into the command"
        )
    if sys.stdin.isatty():
        render.note("reading frames from the terminal, one per line; Ctrl-D ends the input")
    return iter(partial(sys.stdin.buffer.readline, _LONGEST_LINE), b"")


def _tables(found: Sequence[Prediction]) -> list[RenderableType]:
    """Show predictions: as timelines, as tables, or many of them as one line each.

    The title is the name of the clip, or its place if several clips have that name.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for item in found:
        places[item.clip].add(item.place)

    def title(item: Prediction) -> str:
        return item.clip if len(places[item.clip]) == 1 else item.place

    if any(item.span is not None for item in found):
        groups = itertools.groupby(found, key=lambda item: (item.place, item.clip))
        timelines = [list(items) for _, items in groups]
        return spaced([_timeline(title(items[0]), items) for items in timelines])
    if len(found) <= _MAX_TABLES:
        return spaced([_guesses(title(item), item) for item in found])
    return [_line(title(item), item) for item in found]


def _guesses(title: str, item: Prediction) -> SafeTable:
    table = make_table(title, "probability>", "")
    for guess in item.guesses:
        table.add_row(guess.name, f"{guess.probability:.1%}", _bar(guess.probability))
    return table


def _line(title: str, item: Prediction) -> str:
    guesses = ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in item.guesses)
    return f"{title}: {guesses}"


def _timeline(title: str, items: Sequence[Prediction]) -> SafeTable:
    """Show windows in order; adjacent windows with the same action are one row."""
    table = make_table(f"{title}, seconds", "action", "probability>", "")
    runs: list[list[Prediction]] = []
    for item in items:
        if runs and _continues(runs[-1][-1], item):
            runs[-1].append(item)
        else:
            runs.append([item])
    for windows in runs:
        first, last = windows[0].span, windows[-1].span
        assert first is not None
        assert last is not None
        mean = sum(window.guesses[0].probability for window in windows) / len(windows)
        time = f"{first.start_s:.1f} to {last.end_s:.1f}"
        table.add_row(time, windows[0].guesses[0].name, f"{mean:.1%}", _bar(mean))
    return table


def _continues(before: Prediction, item: Prediction) -> bool:
    assert before.span is not None
    assert item.span is not None
    is_adjacent = item.span.first <= before.span.end
    return is_adjacent and item.guesses[0].name == before.guesses[0].name


def _bar(share: float) -> str:
    return "█" * round(share * _BAR_WIDTH)
