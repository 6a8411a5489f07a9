"""The content of environment.json: what a run was trained with, and where.

A run that is resumed is compared with it.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.launcher import Hardware
from sgnray.distributed.resources import Workers
from sgnray.errors import RunError
from sgnray.storage.mirror import display_name
from sgnray.version import __version__

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "ray", "numpy", "pyarrow")


def describe_environment(
    dataset: SkeletonDataset, hardware: Hardware, recipe: Recipe, command: str
) -> dict[str, Any]:
    """Return versions, commit, device, threads, precision, command and dataset as plain data."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {
            "sgnray": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "commit": _commit(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "device": hardware.description,
        "threads": hardware.threads_per_worker,
        "workers": hardware.workers.most,
        "fewest_workers": hardware.workers.fewest,
        "precision": recipe.train.precision,
        "dataset_dir": str(dataset.folder.resolve()),
        "dataset_checksum": dataset.info.checksum,
        "split_checksum": dataset.info.split_checksum(recipe.data.case),
    }


def check_num_workers(run: RunFolder, workers: Workers, *, is_finished: bool) -> None:
    """Raise RunError if a finished run had another number of workers; warn if it is unfinished.

    The number decides over which clips batch norm averages, and so changes the result slightly. An
    elastic run has no fixed number.
    """
    last = last_start(run)
    if last is None or workers.is_elastic:
        return
    fewest, most = last.get("fewest_workers"), last.get("workers")  # older versions wrote neither
    if most is None or fewest != most or max(1, most) == max(1, workers.most):
        return
    if is_finished:
        raise RunError(
            f"the run has finished, with --workers {most}",
            where=display_name(run.path),
            now="to test it again: sgn eval; "
            f"to train with --workers {workers.most}: choose another --name",
        )
    log.warning(
        "the run was last started with --workers %d: from now on, batch norm sees other shares of "
        "each batch",
        most,
    )


def last_start(run: RunFolder) -> dict[str, Any] | None:
    """Return what environment.json says about the newest command of a run."""
    environment = run.environment()
    return None if environment is None else [environment, *environment["resumed"]][-1]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # Ray is optional without workers
        return None


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
