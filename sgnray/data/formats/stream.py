"""A file for HDF5 that keeps its errors for later: HDF5 crashes if one is raised inside it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class KeptErrors(io.FileIO):
    """A file whose first error is kept in `error`; nothing is written after it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._size = 0  # as if every write had worked

    def check(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; the end is where it would be if every write had worked."""
        if whence == io.SEEK_END:
            return super().seek(self._size + offset)
        return super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; what could not be written reads as zeros."""
        view = memoryview(buffer).cast("B")
        num_read = 0
        while num_read < len(view) and (count := super().readinto(view[num_read:])):
            num_read += count
        view[num_read:] = bytes(len(view) - num_read)
        return len(view)

    def write(self, data: Any, /) -> int:
        """Write all of the data, or keep the error and pretend success."""
        view = memoryview(data).cast("B")
        end = self.tell() + len(view)
        num_written = 0
        while self.error is None and num_written < len(view):
            try:
                num_written += super().write(view[num_written:]) or 0
            except OSError as error:
                self.error = error
        self._size = max(self._size, end)
        self.seek(end)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, or keep the error and pretend success."""
        self._size = self.tell() if size is None else size
        if self.error is None:
            try:
                super().truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size
