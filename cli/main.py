"""The command `sgn`: its commands, and the one place where a failure becomes a message."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from sgnray.errors import OutputError, SgnError
from sgnray.version import __version__

from . import data, logs, options, render
from .bench import bench
from .demo import demo
from .eval import evaluate
from .export import export
from .predict import predict
from .prepare import prepare
from .synth import synth
from .train import train
from .tune import tune
from .usage import as_usage_error
from .view import view

_ABOUT = "From raw NTU RGB+D skeletons to a trained SGN action recognizer, on a Ray cluster."
_ORDER = (
    *("demo", "synth", "prepare", "data", "bench", "train", "tune"),
    *("eval", "predict", "export", "view"),
)
_INTERRUPTED = 130
_CONTINUES = {
    "train": "the same command continues the run after its last finished epoch",
    "prepare": "the same command continues where it stopped",
    "tune": "the same command goes on; trials that have ended are not repeated",
}


class _InOrder(TyperGroup):
    """Commands in the order of the work; typer would put the groups among them last."""

    def __init__(self, *, commands: dict[str, Any], **settings: Any) -> None:
        super().__init__(commands={name: commands[name] for name in _ORDER}, **settings)


app = typer.Typer(
    name="sgn",
    cls=_InOrder,
    help=_ABOUT,
    epilog="\b\nStart with:\n  sgn demo\n  sgn train --help",
    add_completion=False,
    rich_markup_mode=None,  # plain text, in half the time
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run `sgn`; its exit code is 0 done, 1 failed, 2 asked wrongly, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logs.start(render.log_line)
    try:
        code = _run(arguments)
    except KeyboardInterrupt:  # a second Ctrl-C, while the first was being told
        code = _INTERRUPTED
    sys.exit(code)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Everything that stands before the verb."""
    if version:
        render.text(f"sgn {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        render.text(f"{context.get_help()}\n")


_EXAMPLES: dict[Callable[..., None], tuple[str, tuple[str, ...]]] = {
    demo: ("demo", ("sgn demo",)),
    synth: ("synth", ("sgn synth synth-raw", "sgn synth synth-raw --classes 12 --seed 1")),
    prepare: (
        "prepare",
        ("sgn prepare --raw nturgbd_skeletons.zip", "sgn prepare --raw NW-UCLA.zip --workers 8"),
    ),
    bench: ("bench", ("sgn bench", "sgn bench --case cv --workers 2 --json")),
    train: (
        "train",
        ("sgn train --case cv --workers 8", "sgn train --recipe ntu60-cs optim.batch_size=128"),
    ),
    tune: ("tune", ("sgn tune --trials 32", "sgn tune --case cv --search grid --epochs 20")),
    evaluate: ("eval", ("sgn eval", "sgn eval runs/ntu60-cv-1a2b3c4d --views 10 --json")),
    predict: (
        "predict",
        (
            "sgn predict S001C001P001R001A001.skeleton",
            "sgn predict recordings/ --checkpoint 0_best.pth --json",
            "sgn predict long.skeleton --window 60 --stride 15",
        ),
    ),
    export: (
        "export",
        ("sgn export", "sgn export runs/NAME --to safetensors"),
    ),
    view: ("view", ("sgn view S001C001P001R001A001.skeleton", "sgn view data/ntu60 NAME --to png")),
}
_DATA_EXAMPLES: dict[Callable[..., None], tuple[str, tuple[str, ...]]] = {
    data.verify: ("verify", ("sgn data verify", "sgn data verify --data data/ntu60")),
    data.export: (
        "export",
        ("sgn data export --to npz --case cs", "sgn data export --to pyskl --out ntu60.pkl"),
    ),
}


def _epilog(*examples: str) -> str:
    return "\n".join(["\b\nExamples:", *(f"  {line}" for line in examples)])


for _function, (_name, _lines) in _EXAMPLES.items():
    app.command(_name, epilog=_epilog(*_lines))(_function)
_data_app = typer.Typer(rich_markup_mode=None)
for _function, (_name, _lines) in _DATA_EXAMPLES.items():
    _data_app.command(_name, epilog=_epilog(*_lines))(_function)
app.add_typer(
    _data_app,
    name="data",
    callback=data.show,
    invoke_without_command=True,
    epilog=_epilog("sgn data", "sgn data --data data/ntu60 -v", "sgn data verify"),
)


def _run(arguments: list[str]) -> int:
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="sgn", standalone_mode=False)
        return _interrupted(arguments) if code == _INTERRUPTED else 0
    except SgnError as failure:
        return _fail(failure)
    except TyperException as failure:
        return _fail(as_usage_error(failure))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except BrokenPipeError:  # `sgn eval | head`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the exit
        return 1
    except OSError as failure:
        return _fail(_as_output_error(failure))
    except Exception as failure:
        return _fail(_as_bug(failure))


def _interrupted(arguments: list[str]) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), "")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the way out is short, and others print on it
    render.note("; ".join(filter(None, ["interrupted", _CONTINUES.get(verb)])))
    return _INTERRUPTED


def _fail(failure: SgnError) -> int:
    if logs.is_tracing():
        logging.getLogger("sgnray.cli").debug("the traceback", exc_info=failure)
    render.error(failure)
    return failure.exit_code


def _as_output_error(failure: OSError) -> SgnError:
    told = OutputError(
        f"the system refused a file: {failure.strerror or failure}",
        where=str(failure.filename or "no file was named"),
        now="check that the disk has space and that the folder may be read and written",
    )
    told.__cause__ = failure
    return told


def _as_bug(failure: Exception) -> SgnError:
    told = SgnError(
        f"this is a bug in sgnray: {type(failure).__name__}: {failure}",
        where=_write_traceback(failure),
        now="please report it with that file; what was finished before is kept",
    )
    told.__cause__ = failure
    return told


def _write_traceback(failure: Exception) -> str:
    story: Any = "".join(traceback.format_exception(failure))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sgn-bug-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"sgn {__version__}: {' '.join(sys.argv)}\n{story}")
    except OSError:
        return f"no file could be written for the traceback\n{story}"
    return file.name
