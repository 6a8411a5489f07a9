"""How fast raw text becomes a dataset, and in how much memory; `pytest -m bench -s tests/bench`.

SGNRAY_BENCH_RAW names a folder to keep the synthetic recordings in (1.2 GB), or to read others.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sgnray.synth.generate import synthesize

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

ONE = Path(__file__).parent / "prepare_one.py"
NUM_ROUNDS = 3
PADDED_BYTES_PER_CLIP = 300 * 150 * 4


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = Path(os.environ.get("SGNRAY_BENCH_RAW") or tmp_path_factory.mktemp("bench") / "raw")
    if not folder.exists():
        synthesize(folder, num_classes=8, num_subjects=26, num_replications=8)
    return folder


@pytest.fixture(scope="module")
def halves(raw, tmp_path_factory):
    """The same recordings divided between two folders, as links."""
    folders = [tmp_path_factory.mktemp("half") for _ in range(2)]
    for index, path in enumerate(sorted(raw.glob("*.skeleton"))):
        (folders[index % 2] / path.name).symlink_to(path)
    return folders


def start(what, raw, out, cores):
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, ONE, str(what), str(raw), str(out), cores]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def figures_of(process):
    """Bytes and seconds of a process: of all steps, and for `prepare` of the reading alone."""
    return json.loads(process.communicate()[0].splitlines()[-1])


def run(*arguments):
    num_bytes, seconds, *_ = figures_of(start(*arguments))
    return num_bytes / seconds / 1e6


def test_speed_on_one_core(raw, tmp_path):
    run(0, raw, tmp_path / "out", "0")  # so that all files are in the page cache
    for _ in range(NUM_ROUNDS):
        alone = run("csv", raw, tmp_path / "out", "0")
        whole = run(0, raw, tmp_path / "out", "0")
        print(f"\ncsv reader alone {alone:.0f} MB/s, sgn prepare {whole:.0f}: {whole / alone:.0%}")


def test_two_workers_against_two_processes(raw, halves, tmp_path):
    for _ in range(NUM_ROUNDS):
        pair = [start(0, halves[core], tmp_path / str(core), str(core)) for core in range(2)]
        apart = [figures_of(process) for process in pair]
        two = figures_of(start(2, raw, tmp_path / "two", "0,1"))
        for what, column in (("as a whole, Ray's start and end too", 0), ("reading", 2)):
            expected = sum(row[column] / row[column + 1] for row in apart) / 1e6
            found = two[column] / two[column + 1] / 1e6
            print(
                f"\n{what}: two processes {expected:.0f} MB/s, two workers {found:.0f}: "
                f"{found / expected:.0%}"
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_memory(raw, tmp_path, workers):
    twice = tmp_path / "twice"
    twice.mkdir()
    for path in raw.glob("*.skeleton"):
        (twice / path.name).symlink_to(path)
        later = f"S9{path.name[2:]}"  # another setup: a recording of its own
        (twice / later).symlink_to(path)
    (twice / "synth.json").symlink_to(raw / "synth.json")
    for name, folder in (("once", raw), ("twice", twice)):
        process = start(workers, folder, tmp_path / "out", "0,1")
        peak = watch_memory(process)
        num_bytes = figures_of(process)[0]
        size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        with (tmp_path / "out" / "dataset.json").open() as file:
            num_clips = json.load(file)["num_clips"]
        padded = num_clips * PADDED_BYTES_PER_CLIP * 2  # both h5 files, of cs and of cv
        print(
            f"\n{workers} workers, {name}: {num_bytes / 1e6:.0f} MB raw, at most "
            f"{peak / 1e6:.0f} MB of anonymous memory in a process; "
            f"dataset 1/{padded / size:.1f} of two padded files"
        )


def watch_memory(process):
    """The largest RssAnon of any process of a tree in any sample, in bytes."""
    peak = 0
    tree = psutil.Process(process.pid)
    done = threading.Event()

    def look():
        nonlocal peak
        while not done.wait(0.02):
            try:
                family = [tree, *tree.children(recursive=True)]
                peak = max(peak, *(anonymous_bytes(member.pid) for member in family))
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=look)
    thread.start()
    while process.poll() is None:
        time.sleep(0.05)
    done.set()
    thread.join()
    return peak


def anonymous_bytes(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
