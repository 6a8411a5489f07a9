"""The log file of a run or a search, and the logs of other libraries."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sgnray.storage.atomic import output_errors

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Also write the library's log to `path`, with the traceback of a failure."""
    logger = logging.getLogger("sgnray")
    with output_errors(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    except BaseException as error:
        # The terminal shows one block; the traceback is only in this file.
        is_failure = not isinstance(error, KeyboardInterrupt)
        severity, text = (
            (logging.ERROR, "the run failed") if is_failure else (logging.INFO, "interrupted")
        )
        trace = sys.exc_info() if is_failure else None
        handler.handle(logger.makeRecord(logger.name, severity, __file__, 0, text, (), trace))
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def quiet_logger(name: str, level: int) -> Iterator[None]:
    """Show nothing below `level` of another library's log."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


class _LogFile(logging.FileHandler):
    """A log file that drops records if the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the record: the terminal must not show a traceback for it."""
