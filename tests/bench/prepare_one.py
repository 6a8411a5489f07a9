"""One measured process: prepare raw files, or only read their numbers with pyarrow's CSV reader."""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import csv


def read_numbers(raw):
    """Three float columns out of the same bytes, joined in one buffer; other rows are skipped."""
    data = b"".join(path.read_bytes() for path in sorted(raw.rglob("*.skeleton")))
    names = [f"column{index}" for index in range(12)]
    begin = time.perf_counter()
    csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False, column_names=names),
        parse_options=csv.ParseOptions(delimiter=" ", invalid_row_handler=lambda row: "skip"),
        convert_options=csv.ConvertOptions(
            include_columns=names[:3], column_types=dict.fromkeys(names[:3], pa.float64())
        ),
    )
    return len(data), time.perf_counter() - begin


def prepare(raw, out, workers):
    """All steps, from listing the files to the dataset in its place.

    Measured twice: as a whole, and from the first part read to the last, when Ray is running.
    """
    from sgnray.prepare import dataset, prepare_dataset

    dataset._STARTING_BYTES = 0  # with workers it is Ray that is measured

    reached = []

    def on_progress(num_done, num_clips):
        reached.append((time.perf_counter(), num_done / num_clips))

    begin = time.perf_counter()
    result = prepare_dataset(raw, out=out, workers=workers, on_progress=on_progress)
    seconds, num_bytes = time.perf_counter() - begin, result.info.source["num_bytes"]
    (first_s, first_share), (last_s, last_share) = reached[0], reached[-1]
    return num_bytes, seconds, num_bytes * (last_share - first_share), last_s - first_s


if __name__ == "__main__":
    what, raw, out, cores = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    done = read_numbers(raw) if what == "csv" else prepare(raw, out, int(what))
    print(json.dumps(done))
