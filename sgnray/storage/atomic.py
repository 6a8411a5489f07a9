"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sgnray.errors import OutputError, UsageError

URI = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def advise(error: OSError, default: str) -> str:
    """Return what to do about an error of the file system."""
    return _ADVICE.get(error.errno or 0, default)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; raises OutputError."""
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written_atomically(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield a path next to `path` to write to, which becomes `path` if the block succeeds.

    `suffix` is for writers that check the file name. Raises OutputError; no partial file is left.
    """
    # Two commands may write the same report.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial{suffix}")
    with output_errors(path):
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def replace_folder(ready: Path, out: Path, *, previous: Path) -> None:
    """Move a finished folder to `out`; an older one is moved to `previous`, and back on failure."""
    if out.exists():
        out.rename(previous)
    try:
        ready.rename(out)
    except BaseException:
        if previous.exists():
            previous.rename(out)
        raise


def refuse_uri(path: Path | str) -> None:
    """Raise UsageError for a URI where only this machine is written to: `s3:` would be a folder."""
    if URI.match(str(path)):
        raise UsageError(
            "this is only written to this machine, not to a URI",
            where=str(path),
            now="name a path here, and copy the result",
        )


def make_parent(path: Path) -> None:
    """Make the folder of a file that will be written; raises OutputError, UsageError for a URI."""
    refuse_uri(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def choose_format(
    to: str | None, out: Path | str | None, suffixes: Mapping[str, str], *, default: str
) -> str:
    """Choose a format by its name, else by the suffix of the file; raises UsageError."""
    if to is not None and to not in suffixes:
        raise UsageError(
            f"unknown format {to!r}", where=f"--to {to}", now=f"one of {', '.join(suffixes)}"
        )
    known = {suffix: name for name, suffix in suffixes.items()}
    suffix = Path(out).suffix.lower() if out is not None else ""
    implied = known.get(suffix)
    if to is None and suffix and implied is None:
        raise UsageError(
            f"no format has the suffix {suffix!r}",
            where=f"--out {out}",
            now=f"use one of the suffixes {', '.join(known)}; or name the format with --to "
            + " or ".join(suffixes),
        )
    if to is not None and implied not in (None, to):
        raise UsageError(
            f"the file name implies {implied}, but {to} was requested",
            where=f"--to {to} --out {out}",
            now="leave out --to, or give the file another suffix",
        )
    return to or implied or default


def check_writable(folder: Path) -> None:
    """Raise OutputError if no file can be written to a folder that may not exist yet."""
    with output_errors(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if an output file is a folder, or exists and is not to be replaced."""
    if path.is_dir():
        raise UsageError(
            "the output is a folder", where=str(path), now="choose another file with --out"
        )
    if path.exists() and not overwrite:
        raise UsageError(
            "the file exists already",
            where=str(path),
            now="choose another with --out, or replace it with --overwrite",
        )


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Report a full or read-only disk, for example, as an OutputError at `path`."""
    try:
        yield
    except OSError as error:
        advice = advise(error, "choose a writable folder")
        raise OutputError(
            f"it could not be written: {error.strerror or error}",
            where=str(path),
            now=f"{advice}, then run it again",
        ) from error
