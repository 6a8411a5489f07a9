"""What the library logs, on the screen: how much of it, and who draws it."""

from __future__ import annotations

import logging
from collections.abc import Callable

TRACE = 1
_LEVELS = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG, 2: TRACE}


class ScreenHandler(logging.Handler):
    """Hand every record of the library to `show(text, level)`."""

    def __init__(self) -> None:
        super().__init__(level=logging.INFO)
        self.show: Callable[[str, int], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Draw one record, without its traceback unless everything was asked for."""
        if self.show is None:
            return
        try:
            text = self.format(record) if is_tracing() else record.getMessage()
            self.show(text, record.levelno)
        except Exception:  # a broken log call must not end a training run
            self.handleError(record)


_screen = ScreenHandler()


def start(show: Callable[[str, int], None]) -> None:
    """Send the library's log to the screen; files of a run keep their own, fuller level."""
    logger = logging.getLogger("sgnray")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # Ray gives the root logger a handler of its own
    logger.addHandler(_screen)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    _screen.show = show
    set_verbosity(0)


def set_verbosity(steps: int) -> None:
    """Show errors only (-1), notes (0), details (1) or tracebacks too (2 and more)."""
    _screen.setLevel(_LEVELS[max(-1, min(steps, 2))])


def is_quiet() -> bool:
    """Whether only errors and results are shown."""
    return _screen.level > logging.INFO


def is_tracing() -> bool:
    """Whether tracebacks are shown."""
    return _screen.level <= TRACE
