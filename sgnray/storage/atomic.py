"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sgnray.errors import OutputError, UsageError


def write_text(path: Path, text: str) -> None:
    """Write a text aside and move it into place; raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place; raises OutputError."""
    aside = path.with_name(f"{path.name}.partial")
    with output_errors(path):
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def choose_format(
    to: str | None, out: Path | None, suffixes: Mapping[str, str], *, default: str
) -> str:
    """Choose a format by its name, else by the suffix of the file; raises UsageError."""
    if to is not None and to not in suffixes:
        raise UsageError(
            f"there is no format {to!r}", where=f"--to {to}", now=f"one of {', '.join(suffixes)}"
        )
    known = {suffix: name for name, suffix in suffixes.items()}
    told = known.get(out.suffix.lower()) if out is not None else None
    if to is not None and told not in (None, to):
        raise UsageError(
            f"the file's name says {told}, and {to} is asked for",
            where=f"--to {to} --out {out}",
            now="leave out --to, or give the file another suffix",
        )
    return to or told or default


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if an output file exists already and is not to be replaced."""
    if path.exists() and not overwrite:
        raise UsageError(
            "the file exists already",
            where=str(path),
            now="choose another with --out, or replace it with --overwrite",
        )


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Tell a full or read-only disk as an OutputError at `path`."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise OutputError(
            f"it could not be written: {error.strerror or error}",
            where=str(path),
            now=("free some space" if is_full else "choose a place that can be written")
            + ", then run it again",
        ) from error
