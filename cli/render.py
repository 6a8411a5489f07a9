"""The only printer: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sgnray.data.progress import OnProgress
from sgnray.errors import OutputError, SgnError

from .tables import clean

_TRACE = 1
_LEVELS = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG, 2: _TRACE}
_PLAIN_INTERVAL_S, _PLAIN_STEP = 2.0, 0.05
LONG_INTERVAL_S = 60.0  # between lines about a part of a training, whose other lines come by epoch
_live: Console | None = None  # while a bar is drawn, lines go above it through its console


def result(*parts: RenderableType) -> None:
    """Print tables or lines of a result on stdout."""
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(
                clean(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str)
            )
    # Table rows are padded with spaces, which are unwanted in a file.
    text("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))


def text(content: str) -> None:
    """Print text on stdout unchanged; characters missing in its encoding are escaped."""
    if sys.stdout is None:  # a shell's >&-
        raise OutputError(
            "the result cannot be printed: stdout is closed",
            where="stdout",
            now="leave stdout open, or redirect it to a file or to /dev/null",
        )
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(content.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # `sgn eval | head`
        raise
    except OSError as error:
        close_stdout()
        raise OutputError(
            f"the result cannot be printed: {error.strerror or error}",
            where="stdout",
            now="redirect it to a disk with free space, or to /dev/null",
        ) from error


def close_stdout() -> None:
    """Drop what could not be printed: Python would try again at its exit, and fail."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the exit


def as_json(
    content: Mapping[str, Any], *, version: int | None = None, indent: int | None = 2
) -> None:
    """Print one JSON object on stdout, paths as text; without an indent, on one line.

    `version` is its format version, for content that does not hold its own.
    """
    head = {} if version is None else {"format_version": version}
    document = {**head, **content}
    text(json.dumps(document, indent=indent, allow_nan=False, default=os.fspath) + "\n")


@contextmanager
def stderr_that_may_fail() -> Iterator[None]:
    """Continue without messages once stderr cannot be written: a full disk, a `tee` that ended."""
    if sys.stderr is None:  # a shell's 2>&-
        yield
        return
    with redirect_stderr(cast("TextIO", _DroppedOnError(sys.stderr))):
        yield


class _DroppedOnError:
    """A stream that goes to os.devnull from its first error on, for child processes as well."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Replace the file itself: Python writes what is buffered again at its exit."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


def note(line: str) -> None:
    """Print a line on stderr; silent with -q."""
    _log_line(line, logging.INFO)


def warning(line: str) -> None:
    """Print a warning on stderr; silent with -q."""
    _log_line(line, logging.WARNING)


def error(failure: SgnError) -> None:
    """Print a failure as one block: what is wrong, each problem, where, and what to do now."""
    rows = [(problem.where, problem.what) for problem in failure.problems]
    width = max((len(where) for where, _ in rows), default=0)
    lines = _hanging("error: ", failure.what)
    for where, what in rows:
        lines += _hanging(f"  {where:<{width}}  ", what)
    lines += _hanging("  where  ", failure.where) + _hanging("  now    ", failure.now)
    block = Text(clean("\n".join(lines)))
    block.stylize("bold red", 0, len("error:"))
    _print(block)


def start_logging() -> None:
    """Show the library's log on stderr; a run's log file has its own, more detailed level."""
    logger = logging.getLogger("sgnray")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # Ray gives the root logger a handler of its own
    logger.addHandler(_screen)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    set_verbosity(0)


def set_verbosity(steps: int) -> None:
    """Show errors only (-1), notes (0), details (1) or tracebacks too (2 and more)."""
    _screen.setLevel(_LEVELS[max(-1, min(steps, 2))])


def is_quiet() -> bool:
    """Return whether only errors and results are shown."""
    return _screen.level > logging.INFO


def is_verbose() -> bool:
    """Return whether details are shown."""
    return _screen.level <= logging.DEBUG


def is_tracing() -> bool:
    """Return whether tracebacks are shown."""
    return _screen.level <= _TRACE


class _ScreenHandler(logging.Handler):
    """Shows every record of the library."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, with its traceback only at -vv."""
        try:
            line = self.format(record) if is_tracing() else record.getMessage()
            _log_line(line, record.levelno)
        except Exception:  # a broken log call must not end a training run
            self.handleError(record)


_screen = _ScreenHandler(level=logging.INFO)


def _log_line(line: str, level: int) -> None:
    if level < _screen.level:
        return
    text = Text(clean(line), style="" if level >= logging.INFO else "dim")
    if level >= logging.ERROR:
        text = Text.assemble(("error: ", "bold red"), text)
    elif level >= logging.WARNING:
        text = Text.assemble(("warning: ", "yellow"), text)
    _print(text)


@contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """Show `(done, total)` as a bar on a terminal, else as a line from time to time."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=stderr(),
        transient=True,
    )
    task = bar.add_task(what, total=None)

    def update(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)

    with live(bar) as is_live:
        yield update if is_live else lines_of_progress(what)


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show on a terminal that work of unknown length continues; it may not show a bar itself."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    shown = Progress(*columns, console=stderr(), transient=True)
    shown.add_task(what, total=None)
    with live(shown):
        yield


@contextmanager
def live(display: Live | Progress) -> Iterator[bool]:
    """Keep a display on stderr, below the lines printed meanwhile.

    Yields False, showing nothing, if quiet or not on a real terminal.
    """
    global _live
    console = display.console
    with redirect_stdout(sys.stderr):  # output of other libraries, such as Ray, is not a result
        if is_quiet() or not console.is_terminal or console.is_dumb_terminal:
            yield False
            return
        _live = console
        try:
            with display:
                yield True
        finally:
            _live = None


def lines_of_progress(what: str, *, interval_s: float = _PLAIN_INTERVAL_S) -> OnProgress:
    """Return a callback that prints a line from time to time, at most one per interval."""
    shown_at, shown = time.monotonic(), 0.0

    def update(done: int, total: int) -> None:
        nonlocal shown_at, shown
        now, share = time.monotonic(), done / max(total, 1)
        if now - shown_at >= interval_s and share - shown >= _PLAIN_STEP:
            shown_at, shown = now, share
            note(f"{what}: {done:,} of {total:,}")

    return update


def stderr() -> Console:
    """Return the console of messages: that of the live display, if there is one."""
    return _live or Console(stderr=True, highlight=False, markup=False, emoji=False)


def _print(line: Text) -> None:
    stderr().print(line, soft_wrap=True)


def _hanging(head: str, body: str) -> list[str]:
    """Wrap for a terminal only: in a file or a pipe, one problem stays one line."""
    console, indent = stderr(), " " * min(len(head), 24)
    if not console.is_terminal:
        return [head + body.replace("\n", f"\n{indent}")]
    return textwrap.wrap(
        body,
        width=max(40, console.width - 1),
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]
