"""The command `sgn`: its commands, and the one place where a failure becomes a message."""

from __future__ import annotations

import logging
import re
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from sgnray.errors import OutputError, SgnError, UsageError, first_line
from sgnray.storage.atomic import advise
from sgnray.version import __version__

from . import data, options, render
from .bench import bench
from .demo import demo
from .eval import evaluate
from .export import export
from .predict import predict
from .prepare import prepare
from .signals import InterruptHandler, interruptible
from .synth import synth
from .train import train
from .tune import tune
from .view import view

_ABOUT = "From raw skeletons to a trained SGN action recognizer, on one machine or a Ray cluster."
# Each command with its function and its examples, in the order of a typical workflow.
_COMMANDS: dict[str, tuple[Callable[..., None], *tuple[str, ...]]] = {
    "demo": (demo, "sgn demo"),
    "synth": (synth, "sgn synth synth-raw", "sgn synth synth-raw --classes 12 --seed 1"),
    "prepare": (
        prepare,
        "sgn prepare --raw nturgbd_skeletons.zip",
        "sgn prepare --raw NW-UCLA.zip --workers 8",
    ),
    "bench": (bench, "sgn bench", "sgn bench --case cv --workers 2 --json"),
    "train": (
        train,
        "sgn train --case cv --workers 8",
        "sgn train --recipe ntu60-cs optim.batch_size=128",
    ),
    "tune": (tune, "sgn tune --trials 32", "sgn tune --case cv --space frontier --epochs 20"),
    "eval": (evaluate, "sgn eval", "sgn eval runs/ntu60-cv-1a2b3c4d --views 10 --json"),
    "predict": (
        predict,
        "sgn predict S001C001P001R001A001.skeleton",
        "sgn predict recordings/ --checkpoint 0_best.pth --json",
        "sgn predict long.skeleton --window 60 --stride 15",
        "sgn predict recordings/ --out predictions.parquet",
        "sgn predict --live < frames.jsonl",
    ),
    "export": (export, "sgn export", "sgn export runs/NAME --to safetensors"),
    "view": (view, "sgn view S001C001P001R001A001.skeleton", "sgn view data/ntu60 NAME --to png"),
}
_DATA_COMMANDS: dict[str, tuple[Callable[..., None], *tuple[str, ...]]] = {
    "verify": (data.verify, "sgn data verify", "sgn data verify --data data/ntu60"),
    "export": (
        data.export,
        "sgn data export --to npz --case cs",
        "sgn data export --to pyskl --out ntu60.pkl",
    ),
}
_INTERRUPTED = 130
# Large packages: much works without them, so they may be missing.
_LARGE = {"ray", "torch"}
# What torch and the loader of libraries say instead of a MemoryError. Where the loader's first
# message is about permissions, more text follows.
_LACKS_MEMORY = re.compile(
    "DefaultCPUAllocator|failed to map segment from shared object$|Cannot allocate memory"
)
_CONTINUES = {
    "train": "rerun the same command to resume after the last finished epoch",
    "prepare": "rerun the same command to resume where it stopped",
    "predict --out": "rerun the same command to resume where it stopped",
    "tune": "rerun the same command to resume; finished trials are not repeated",
}


class _InOrder(TyperGroup):
    """Lists `data`, a group, before `bench`; typer would put it last."""

    def __init__(self, *, commands: dict[str, Any], **settings: Any) -> None:
        names = list(_COMMANDS)
        names.insert(names.index("bench"), "data")
        super().__init__(commands={name: commands[name] for name in names}, **settings)


app = typer.Typer(
    name="sgn",
    cls=_InOrder,
    help=_ABOUT,
    epilog="\b\nStart with:\n  sgn demo\n  sgn train --help",
    rich_markup_mode=None,  # plain text, in half the time
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run `sgn`; exit codes: 0 done, 1 failed, 2 wrong usage, 128 + signal interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    render.start_logging()
    code = _INTERRUPTED
    with (
        suppress(KeyboardInterrupt),
        render.stderr_that_may_fail(),
        interruptible() as ending,
    ):
        code = _run(arguments, ending)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Options before the command."""
    if version:
        render.text(f"sgn {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        render.text(f"{context.get_help()}\n")


def _epilog(*examples: str) -> str:
    return "\n".join(["\b\nExamples:", *(f"  {line}" for line in examples)])


_data_app = typer.Typer(rich_markup_mode=None)
for _app, _commands in ((app, _COMMANDS), (_data_app, _DATA_COMMANDS)):
    for _name, (_function, *_examples) in _commands.items():
        _app.command(_name, epilog=_epilog(*_examples))(_function)
app.add_typer(
    _data_app,
    name="data",
    callback=data.show,
    invoke_without_command=True,
    epilog=_epilog("sgn data", "sgn data --data data/ntu60 -v", "sgn data verify"),
)


def _run(arguments: list[str], ending: InterruptHandler) -> int:
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="sgn", standalone_mode=False)
        return _interrupted(arguments, ending) if code == _INTERRUPTED else code or 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments, ending)
    except BrokenPipeError:  # `sgn eval | head`
        render.close_stdout()
        return 1
    except Exception as failure:
        if render.is_tracing():
            logging.getLogger("sgnray.cli").debug("the traceback", exc_info=failure)
        if ending.signal is not None and not isinstance(failure, (SgnError, OSError)):
            return _interrupted(arguments, ending)  # it cut an import short, for example
        error = _as_sgn_error(failure)
        render.error(error)
        return error.exit_code


def _interrupted(arguments: list[str], ending: InterruptHandler) -> int:
    ending.stop_repeating()
    verb = next((word for word in arguments if not word.startswith("-")), "")
    given = {verb, *(word.partition("=")[0] for word in arguments if word.startswith("-"))}
    hints = [hint for words, hint in _CONTINUES.items() if given.issuperset(words.split())]
    render.note("; ".join(["interrupted", *hints]))
    return _INTERRUPTED if ending.signal is None else 128 + ending.signal


def _as_sgn_error(failure: Exception) -> SgnError:
    """Convert any exception into an SgnError that explains it in our own words."""
    if isinstance(failure, SgnError):
        return failure
    if isinstance(failure, TyperException):
        # typer's parser exceptions are private classes, but their attributes are public.
        context: Any = getattr(failure, "ctx", None)
        path = context.command_path if context is not None else "sgn"
        return UsageError(_parser_message(failure, context), where=path, now=f"see '{path} --help'")
    # torch.save hides a MemoryError.
    is_of_memory = any(isinstance(it, MemoryError) for it in (failure, failure.__context__))
    if is_of_memory or _LACKS_MEMORY.search(str(failure)):
        advice = "choose smaller numbers (views, segments, widths, clips per batch), or "
        limits = [
            resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        ]
        is_limited = any(limit != resource.RLIM_INFINITY for limit in limits)
        advice += "raise the limit (ulimit -v, ulimit -d)" if is_limited else "end other programs"
        return SgnError(
            "the memory of this machine is not sufficient", where=first_line(failure), now=advice
        )
    if isinstance(failure, OSError):
        return OutputError(
            f"a file operation failed: {failure.strerror or failure}",
            where=str(failure.filename or "stdout, or a file whose name is not known"),
            now=advise(failure, "check that the folder is readable and writable"),
        )
    if isinstance(failure, ModuleNotFoundError) and failure.name in _LARGE:
        return SgnError(
            f"this needs the package {failure.name}, which is not installed",
            where=sys.prefix,
            now="install it as the README describes, or use the environment that has it",
        )
    from sgnray.storage.location import without_secrets

    return SgnError(
        without_secrets(
            f"this is a bug in sgnray: {type(failure).__name__}: {first_line(failure)}"
        ),
        where=_write_traceback(without_secrets("".join(traceback.format_exception(failure)))),
        now="please report it with this file; finished work is kept",
    )


def _parser_message(failure: Any, context: Any) -> str:
    """Rewrite a parser error: name the wrong option or command, and suggest the closest one."""
    from sgnray.config.messages import did_you_mean

    message = str(failure.format_message() if hasattr(failure, "format_message") else failure)
    command = re.match(r"No such command '(.*?)'", message)
    if command is not None:
        known = list(context.command.commands)
        meant = did_you_mean(command[1], known) or f"; the commands are {', '.join(known)}"
        return f"unknown command '{command[1]}'{meant}"
    option = getattr(failure, "option_name", None)
    if message.startswith("No such option"):
        known = [name for param in context.command.params for name in param.opts]
        if str(option).lstrip("-") in known:
            return f"{option} is an argument, not an option: write its value without {option}"
        return f"unknown option {option}{did_you_mean(str(option), known)}"
    missing = re.match(r"Missing (\w+) '(.*?)'", message)
    if missing is not None:
        return f"the {missing[1]} {missing[2]} is missing"
    value = re.match(r"Invalid value for '(.*?)': (?:Value error, )?(.*)", message)
    if value is not None:
        what = value[2].replace("Input should", "the value must").partition(", unable to")[0]
        return f"{value[1]}: {what.rstrip('.')}"
    return message[:1].lower() + message[1:].rstrip(".")


def _write_traceback(text: str) -> str:
    try:
        handle, path = tempfile.mkstemp(prefix="sgn-bug-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"sgnray {__version__}: {options.command_line()}\n{text}")
    except OSError:
        return f"no file could be written for the traceback\n{text}"
    return path
