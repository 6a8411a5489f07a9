"""Write predictions to one file as they are made; an interrupted file is resumed.

Rows go to a folder next to the file, as JSON lines, with a small file that records the progress.
The file itself appears when all rows are complete.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import json as pa_json

from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.skipped import Skipped
from sgnray.errors import OutputError, Problem, UsageError
from sgnray.predict.clips import Prediction, PredictionPlan
from sgnray.predict.windows import SkippedWindow
from sgnray.storage.atomic import URI, output_errors, refuse_existing, sync, write_text
from sgnray.storage.location import escape_name, resolve
from sgnray.storage.lock import locked_folder
from sgnray.version import __version__

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
SCHEMA = pa.schema(
    {
        "clip": pa.string(),
        "place": pa.string(),
        "num_poses": pa.int32(),
        "first_frame": pa.int32(),
        "end_frame": pa.int32(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "guesses": pa.list_(
            pa.struct({"label": pa.int32(), "name": pa.string(), "probability": pa.float64()})
        ),
        "reason": pa.string(),
    },
    metadata={"format_version": str(FORMAT_VERSION)},
)
_SUFFIXES = (".jsonl", ".parquet")
_ROWS_FILE, _STATE_FILE, _TABLE_FILE = "rows.jsonl", "state", "table"
_SAVE_EVERY_S = 1.0
_BLOCK_BYTES = 16 * 2**20  # read at once; far longer than any row


@dataclass(frozen=True)
class Written:
    """How many recordings are done, and the predictions and skipped recordings among the rows."""

    num_recordings: int = 0
    num_predictions: int = 0
    num_skipped: int = 0
    num_bytes: int = 0


def check_out(out: Path | str, *, overwrite: bool = False) -> Path:
    """Return the file to write predictions to; UsageError if it exists or cannot be one."""
    path = resolve(out)
    if URI.match(str(out)) or path.suffix not in _SUFFIXES or path.is_dir():
        raise UsageError(
            "predictions are written to a .jsonl or .parquet file on this machine",
            where=f"--out {path.name}",
            now="give it a name such as predictions.jsonl",
        )
    refuse_existing(path, overwrite=overwrite)
    return path


def write_predictions(
    plan: PredictionPlan,
    out: Path | str,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Written:
    """Recognize the recordings of a plan and write a row for each prediction.

    A recording that cannot be used has a row with the reason. The file, JSON lines or Parquet by
    its suffix, appears when it is complete; the same call resumes an interrupted one. UsageError if
    the file exists, or was started with another plan, unless `overwrite`; OutputError if writing
    fails.
    """
    shown = Path(out).expanduser()
    out = check_out(out, overwrite=overwrite)
    with _staging(out, shown) as folder:
        plan = plan.resolved()
        rows = _Rows(folder, shown, plan.describe(), overwrite=overwrite)
        num_done = rows.written.num_recordings
        if num_done:
            log.info("continuing: %d of %d recordings are done", num_done, plan.num_recordings)
        found = plan.run(num_done=num_done, on_progress=on_progress)
        with closing(rows), closing(found):
            for part, results in zip(plan.parts(num_done), found, strict=True):
                rows.append(results, num_recordings=len(part))
        with output_errors(shown):
            result = rows.path if out.suffix == ".jsonl" else _to_parquet(rows.path)
            sync(result)
            os.replace(result, out)
    return rows.written


class _Rows:
    """The rows in a staging folder."""

    def __init__(self, folder: Path, out: Path, plan: dict[str, Any], *, overwrite: bool) -> None:
        """Find the rows of an interrupted call; UsageError if they are of another plan."""
        self.path = folder / _ROWS_FILE
        self._out = out
        self._state_path = folder / _STATE_FILE
        self._plan = {"format": FORMAT_VERSION, "sgnray": __version__, **plan}
        self.written = self._resume(overwrite=overwrite)
        with output_errors(out):
            if not self.written.num_recordings:
                self._state_path.unlink(missing_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self.written.num_bytes)
            self._file.seek(0, os.SEEK_END)  # else tell() counts from the old end
        self._saved_at = time.monotonic()

    def append(self, results: Sequence[Prediction | Skipped], num_recordings: int) -> None:
        """Write the rows of the next `num_recordings` recordings."""
        with output_errors(self._out):
            for item in results:
                self._file.write(f"{json.dumps(_row(item), allow_nan=False)}\n".encode())
        num_refused = sum(isinstance(item, Skipped) for item in results)
        self.written = Written(
            num_recordings=self.written.num_recordings + num_recordings,
            num_predictions=self.written.num_predictions + len(results) - num_refused,
            # With windows, all `results` are of one recording.
            num_skipped=self.written.num_skipped + min(num_refused, num_recordings),
            num_bytes=self._file.tell(),
        )
        if time.monotonic() - self._saved_at >= _SAVE_EVERY_S:
            self._save()

    def close(self) -> None:
        """Record the rows written so far, even if a later recording failed."""
        with output_errors(self._out), closing(self._file):
            if self.written.num_recordings:
                self._save()

    def _save(self) -> None:
        """Sync the rows to disk, then record the progress: it survives a power cut."""
        with output_errors(self._out):
            self._file.flush()
            os.fsync(self._file.fileno())
        state = {"plan": self._plan, "written": asdict(self.written)}
        write_text(self._state_path, json.dumps(state))
        self._saved_at = time.monotonic()

    def _resume(self, *, overwrite: bool) -> Written:
        try:
            state = json.loads(self._state_path.read_text())
            written, before = Written(**state["written"]), dict(state["plan"])
            num_bytes = self.path.stat().st_size
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Written()
        differences = [
            Problem(name, f"{before.get(name)} before, {self._plan.get(name)} now")
            for name in {**before, **self._plan}
            if before.get(name) != self._plan.get(name)
        ]
        if not differences:
            return written if written.num_bytes <= num_bytes else Written()
        if overwrite:
            return Written()
        raise UsageError(
            "this file was started with another model, other recordings or other options",
            where=str(self._out),
            now="use the same ones to continue, another --out, or start again with --overwrite",
            problems=differences,
        )


@contextmanager
def _staging(out: Path, shown: Path) -> Iterator[Path]:
    """Lock <out>.partial; it is removed at the end, or if it has nothing to resume from."""
    busy = OutputError(
        "another sgn predict is writing this file",
        where=str(shown),
        now="wait until it ends, or choose another file: --out",
    )
    with locked_folder(out, busy=busy, shown=shown) as folder:
        is_complete = False
        try:
            yield folder
            is_complete = True
        finally:
            if is_complete or not (folder / _STATE_FILE).exists():
                for name in (_ROWS_FILE, _STATE_FILE, _TABLE_FILE):
                    with suppress(OSError):
                        (folder / name).unlink()


def _row(item: Prediction | Skipped) -> dict[str, Any]:
    if isinstance(item, Skipped):
        row: dict[str, Any] = {"clip": item.name, "place": item.place, "reason": item.reason}
        if isinstance(item, SkippedWindow):
            row |= item.span.to_dict()
    else:
        row = item.to_dict()
    # Names of files may hold bytes that are not UTF-8, which readers of JSON refuse.
    return {
        key: escape_name(value) if isinstance(value, str) else value for key, value in row.items()
    }


def build_table(results: Iterable[Prediction | Skipped]) -> pa.Table:
    """Build a table with the rows that `write_predictions` writes."""
    return pa.Table.from_pylist([_row(item) for item in results], schema=SCHEMA)


def _to_parquet(rows: Path) -> Path:
    """Write rows as a Parquet file next to them, a block at a time."""
    table = rows.with_name(_TABLE_FILE)
    with pq.ParquetWriter(table, SCHEMA, compression="zstd") as writer:
        if rows.stat().st_size:
            blocks = pa_json.open_json(
                rows,
                read_options=pa_json.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pa_json.ParseOptions(
                    explicit_schema=SCHEMA, unexpected_field_behavior="error"
                ),
            )
            for block in blocks:
                writer.write_batch(block)
    return table
