"""Tables of clips on disk, Arrow IPC or Parquet: their columns, and their rows in any order.

A Parquet row group, or a record batch of a compressed IPC file, is decoded from its start; a
cursor that each process keeps open makes reading rows in order cost one pass. Batches of an
uncompressed IPC file on this machine are mapped, however large; elsewhere one batch is in memory
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from sgnray.errors import InputError, first_line
from sgnray.prepare.plan import JOB_BYTES
from sgnray.storage.location import Location

JOB_ROWS = 1024
_STEP_BYTES = 2 * 1024 * 1024
_MAGIC = (b"ARROW1", b"PAR1", b"\xff\xff\xff\xff")
_NOW = "write the table again; on a cluster, every node needs it at the same path"


@dataclass(frozen=True)
class Table:
    """One file of clips; `stamp` differs once it is rewritten."""

    location: Location
    kind: str
    stamp: tuple[int, int]

    def schema(self) -> pa.Schema:
        """Read the columns' names and types."""
        with self.errors():
            is_parquet = self.kind == "parquet"
            schema = (
                pq.ParquetFile(self._open()).schema_arrow if is_parquet else self._open_ipc().schema
            )
            str(schema.names)  # a name that is not UTF-8 fails only now
            return schema

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read all rows of some columns."""
        with self.errors():
            if self.kind == "parquet":
                table = pq.ParquetFile(self._open()).read(columns=list(names), use_threads=False)
            else:
                table = self._open_ipc(names).read_all().select(list(names))
            table.validate(full=True)
            return table

    def pieces(self) -> Iterator[Piece]:
        """Cut the rows into pieces of about JOB_BYTES and at most JOB_ROWS."""
        with self.errors():
            chunk_row = start = start_chunk = start_chunk_row = 0
            num_bytes = 0.0
            for chunk, (num_rows, row_bytes) in enumerate(self._chunks()):
                for row in range(chunk_row, chunk_row + num_rows):
                    if row == start:
                        start_chunk, start_chunk_row = chunk, chunk_row
                    num_bytes += row_bytes
                    if num_bytes + row_bytes > JOB_BYTES or row + 1 - start == JOB_ROWS:
                        yield Piece(self, start_chunk, start_chunk_row, start, row + 1)
                        start, num_bytes = row + 1, 0.0
                chunk_row += num_rows
            if start < chunk_row:
                yield Piece(self, start_chunk, start_chunk_row, start, chunk_row)

    def batches(self, chunk: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the start of a chunk, in order, few at a time."""
        if self.kind == "parquet":
            # Without these options, a whole row group is read.
            file = pq.ParquetFile(self._open(), buffer_size=_STEP_BYTES, pre_buffer=False)
            for group in range(chunk, file.num_row_groups):
                meta = file.metadata.row_group(group)
                row_bytes = meta.total_byte_size / max(meta.num_rows, 1)
                yield from file.iter_batches(
                    batch_size=max(1, min(JOB_ROWS, int(_STEP_BYTES / max(row_bytes, 1)))),
                    row_groups=[group],
                    columns=list(names),
                    use_threads=False,
                )
            return
        # Arrow copies fields that are selected; unread fields of a mapped file cost nothing.
        fields = () if self.location.is_local else names
        for batch in self._ipc_batches(fields, chunk):
            yield batch.select(list(names))

    def _chunks(self) -> Iterator[tuple[int, float]]:
        """Yield each chunk's rows, and the bytes of one of them."""
        if self.kind == "parquet":
            metadata = pq.ParquetFile(self._open()).metadata
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                yield group.num_rows, group.total_byte_size / max(group.num_rows, 1)
            return
        # Only one column, because planning must not read all poses. Rows count as equally long.
        sizes = [batch.num_rows for batch in self._ipc_batches(["name"], 0)]
        row_bytes = self.stamp[0] / max(sum(sizes), 1)
        yield from ((num_rows, row_bytes) for num_rows in sizes)

    def _open(self) -> pa.NativeFile:
        if self.location.is_local and self.kind != "parquet":
            return pa.memory_map(self.location.path)
        return self.location.open()

    def _ipc_batches(self, fields: Sequence[str], first: int) -> Iterator[pa.RecordBatch]:
        reader = self._open_ipc(fields)
        if self.kind == "stream":
            yield from islice(reader, first, None)
        else:
            yield from map(reader.get_batch, range(first, reader.num_record_batches))

    def _open_ipc(self, names: Sequence[str] = ()) -> pa.RecordBatchFileReader:
        open_reader = pa.ipc.open_stream if self.kind == "stream" else pa.ipc.open_file
        fields: list[int] = []
        if names:
            known = open_reader(self._open()).schema
            fields = sorted(known.get_field_index(name) for name in names)
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        return open_reader(self._open(), options=options)

    def check_unchanged(self) -> None:
        """Raise InputError if the table is gone or was rewritten since it was planned."""
        entry = self.location.entry()
        if entry is None or (entry.size_bytes, entry.changed) != self.stamp:
            raise InputError(
                "the table has changed, or is not accessible from this machine",
                where=str(self.location),
                now="run this again when it is complete; on a cluster, every node needs it",
            )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of a corrupt or missing file into an InputError."""
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(
                f"the table cannot be read: {first_line(error)}",
                where=str(self.location),
                now=_NOW,
            ) from error


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a table; `chunk` is where reading begins, at row `chunk_row`."""

    table: Table
    chunk: int
    chunk_row: int
    start: int
    stop: int

    def batches(self, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        """Read its rows, few at a time; InputError if the table is corrupt or was rewritten."""
        with self.table.errors():
            for batch in _cursor(self.table, names).rows(self):
                # Arrow would follow list offsets outside of the values without checking them.
                batch.validate(full=True)
                yield batch


class _Cursor:
    """A position in an open table, with the rest of the last batch."""

    def __init__(self, table: Table, names: tuple[str, ...]) -> None:
        self._table, self._names = table, names
        self._following: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        self._row = -1

    def rows(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        """Go to a piece and yield its rows; going back reads its chunk again from the start."""
        is_new = not piece.chunk_row <= self._row <= piece.start
        if is_new or self._table.location.is_local:  # a remote check is a request
            self._table.check_unchanged()
        if is_new:
            self._following = self._table.batches(piece.chunk, self._names)
            self._rest, self._row = None, piece.chunk_row
        while self._row < piece.stop:
            # After an error or an early exit, the cursor starts again.
            row, self._row = self._row, -1
            batch = self._rest if self._rest is not None else next(self._following, None)
            if batch is None:
                raise pa.ArrowInvalid("it has fewer rows than when it was planned")
            end = row + batch.num_rows
            first, last = max(row, piece.start), min(end, piece.stop)
            if first < last:
                yield batch.slice(first - row, last - first)
            stop = max(row, min(end, piece.stop))
            self._rest = batch.slice(stop - row) if stop < end else None
            self._row = stop


@lru_cache(maxsize=1)
def _cursor(table: Table, names: tuple[str, ...]) -> _Cursor:
    return _Cursor(table, names)


def is_table(head: bytes) -> bool:
    """Return whether a file that begins with `head` is an Arrow or Parquet table."""
    return head.startswith(_MAGIC)


def open_table(location: Location) -> Table | str:
    """Detect the kind of a table by its content; if it cannot be used, explain why."""
    entry = location.entry()
    if entry is None or entry.is_folder:
        return "is a folder" if entry is not None else "file not found"
    try:
        with location.open() as file:
            head = file.read(6)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    kind = "parquet" if head[:4] == b"PAR1" else "file" if head == b"ARROW1" else "stream"
    table = Table(location, kind, (entry.size_bytes, entry.changed))
    try:
        table.schema()
    except InputError as error:
        return f"is not a complete Arrow or Parquet file; {error.what}"
    return table
