"""Temporary folders that a signal at any moment does not leave behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, in the system's temporary one if `parent` is None; remove it afterwards.

    Its name is chosen before it exists. `tempfile.TemporaryDirectory` leaves its folder if Ctrl-C
    comes after it was made and before its removal is arranged.
    """
    folder = (parent or Path(tempfile.gettempdir())) / f"{prefix}{uuid4().hex}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
