"""The dataset on whichever machine a worker runs: where it lies, or a copy fetched once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sgnray.data.cache import cached_dataset
from sgnray.data.info import INFO_FILE, read_info
from sgnray.data.store import CLIPS_FILE, SKIPPED_FILE
from sgnray.distributed.queue import FileServer
from sgnray.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedDataset:
    """A dataset of the driver's machine, as its workers receive it."""

    folder: Path
    checksum: str
    file_server: FileServer

    @classmethod
    def of(cls, folder: Path) -> SharedDataset:
        """Offer a dataset to the workers of the cluster that is connected."""
        folder = folder.resolve()
        file_server = FileServer(folder, (CLIPS_FILE, SKIPPED_FILE, INFO_FILE))
        return cls(folder, read_info(folder).checksum, file_server)

    def local_dir(self) -> Path:
        """Give its folder on this machine; where it is not seen, it is fetched, once per machine.

        The copy is checked by the dataset's checksum and kept for later runs.
        """
        try:
            is_same = read_info(self.folder).checksum == self.checksum
            if is_same and (self.folder / CLIPS_FILE).is_file():
                return self.folder
        except (InputError, OSError):
            log.info("%s cannot be seen from this machine", self.folder)
        return cached_dataset(self.checksum, self.file_server.copy_to)
