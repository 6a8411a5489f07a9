"""What a run was made with, for environment.json, and its log.txt."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sgnray.data.store import SkeletonDataset
from sgnray.storage.atomic import output_errors
from sgnray.train.launch import Hardware
from sgnray.version import __version__

_PACKAGES = ("torch", "ray", "numpy", "pyarrow")
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def describe_environment(
    dataset: SkeletonDataset, *, hardware: Hardware, precision: str, command: str
) -> dict[str, Any]:
    """Return versions, commit, device, threads, precision, command and dataset as plain data."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {
            "sgnray": __version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
        "commit": _commit(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "device": hardware.description,
        "threads": hardware.threads_per_worker,
        "workers": hardware.workers.most,
        "fewest_workers": hardware.workers.fewest,
        "precision": precision,
        "dataset_dir": str(dataset.folder.resolve()),
        "dataset_checksum": dataset.info.checksum,
    }


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Write all that the library logs to `path` too, a failure with its traceback."""
    logger = logging.getLogger("sgnray")
    with output_errors(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    except BaseException:
        # The terminal shows one block; the traceback belongs here and only here.
        record = logger.makeRecord(
            logger.name, logging.ERROR, __file__, 0, "the run failed", (), sys.exc_info()
        )
        handler.handle(record)
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk silences; whatever cannot be written besides is told anyway."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let the record go: the terminal must not show a traceback for it."""


def _commit() -> str | None:
    """Return the commit of the checkout that this code runs from, None for an installed wheel."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        found = subprocess.run(  # noqa: S603 - fixed words and our own path
            ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
