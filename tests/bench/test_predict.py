"""From raw text to a label: one clip in torch and ONNX, a directory, and a live stream."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.model_files import write_safetensors
from sgnray.checkpoints.trained_model import load_trained_model, sample_views
from sgnray.config import ModelConfig
from sgnray.data.skeleton import NTU25
from sgnray.distributed.cluster import connected
from sgnray.export.files import DEFAULT_OPSET, open_onnx, write_onnx
from sgnray.model.sgn import SGN
from sgnray.predict import predict_clips, write_predictions
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.ntu import read_skeletons
from sgnray.prepare.readers.raw_files import read_file
from sgnray.prepare.readers.recordings import read_recordings
from sgnray.synth.generate import synthesize

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("SGNRAY_BENCH_ROUNDS", "3"))
NUM_FILES = 1000
NUM_CLIPS = 200
NUM_DECISIONS = 500


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A folder of 1,000 synthetic recordings or a few more, as long as NTU's."""
    folder = tmp_path_factory.mktemp("bench") / "raw"
    synthesize(folder, num_classes=8, num_subjects=16, num_setups=4, num_replications=3)
    for path in sorted(folder.glob("*.skeleton"))[NUM_FILES:]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The paper's model of 60 classes, untrained: its weights do not affect the timing."""
    path = tmp_path_factory.mktemp("model") / "sgn.safetensors"
    sgn = SGN(60)
    description = ModelCard(
        config=ModelConfig(),
        skeleton=NTU25,
        class_names=tuple(f"class {number}" for number in range(60)),
        num_frames=20,
        windows="paper",
        num_views=5,
        dataset=None,
        case=None,
        seed=None,
        selection="last",
        epoch=None,
    )
    write_safetensors(path, sgn.state_dict(), description)
    return path


@pytest.mark.parametrize("num_views", [1, 5])
def test_one_clip_from_text_to_label(recordings, model, tmp_path, num_views):
    torch.set_num_threads(1)
    trained_model = load_trained_model(model)
    texts = [path.read_bytes() for path in sorted(recordings.glob("*.skeleton"))[:NUM_CLIPS]]
    write_onnx(tmp_path / "sgn.onnx", trained_model, opset=DEFAULT_OPSET)
    runs = {
        "torch": torch.no_grad()(trained_model.model),
        "onnx": open_onnx(tmp_path / "sgn.onnx", opset=DEFAULT_OPSET),
    }
    times_s: dict[str, list[float]] = {"torch": [], "onnx": [], "text to poses": []}
    for text in texts:
        for name, run in runs.items():
            start = time.perf_counter()
            poses = normalize(read_skeletons([text])[0], NTU25)
            ready = time.perf_counter()
            views = sample_views([poses], trained_model, num_views)[0]
            int(run(views).mean(dim=0).argmax())
            times_s[name].append(time.perf_counter() - start)
            times_s["text to poses"].append(ready - start)
    print(f"\none clip, {num_views} views, one thread, {len(texts)} recordings")
    for name, durations_s in times_s.items():
        low, middle, high = np.percentile(durations_s, (25, 50, 75)) * 1e3
        print(f"  {name:<14} {middle:6.2f} ms (quartiles {low:.2f} to {high:.2f})")


@pytest.mark.parametrize("num_views", [1, 5])
def test_a_directory(recordings, model, tmp_path, num_views):
    files = find_recordings(recordings).files
    num_bytes = sum(file.size_bytes for file in files)
    exported = tmp_path / "sgn.onnx"
    write_onnx(exported, load_trained_model(model), opset=DEFAULT_OPSET)
    works = {
        "bytes alone": lambda: [read_file(file) for file in files],
        "reading alone": lambda: list(read_recordings(files)),
        "float32": lambda: list(predict_clips(recordings, model, num_views=num_views)),
        "bf16": lambda: list(
            predict_clips(recordings, model, num_views=num_views, precision="bf16")
        ),
        "onnx": lambda: list(predict_clips(recordings, exported, num_views=num_views)),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            rates[name].append(len(files) / (time.perf_counter() - start))
    threads = torch.get_num_threads()
    print(f"\n{len(files)} files, {num_bytes / 1e6:.0f} MB, {num_views} views, {threads} threads")
    for name, found in rates.items():
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"  {name:<14} {statistics.median(found):9,.0f} clips/s ({spread})")


@pytest.mark.ray
def test_workers(recordings, model, tmp_path):
    """Write a file in this process and on Ray workers of one thread each; Ray already runs."""
    files = sorted(recordings.glob("*.skeleton"))
    rates: dict[int, list[float]] = {0: [], 1: [], 2: [], 4: []}
    start = time.perf_counter()
    with connected("local", num_workers=4):
        started_s = time.perf_counter() - start
        for attempt in range(ROUNDS):
            for workers, found in rates.items():
                plan = predict_clips(files, model, num_views=1, workers=workers)
                out = tmp_path / f"{attempt}-{workers}.parquet"
                start = time.perf_counter()
                write_predictions(plan, out)
                found.append(len(files) / (time.perf_counter() - start))
    threads = torch.get_num_threads()
    print(f"\n{len(files)} files, 1 view, {threads} threads in this process, 1 in a worker")
    print(f"  Ray started in {started_s:.1f} s")
    for workers, found in rates.items():
        spread = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"  {workers} workers  {statistics.median(found):6.0f} clips/s ({spread})")


@pytest.mark.parametrize("num_views", [1, 5])
def test_a_live_stream_from_frame_to_label(model, num_views):
    """From writing the last frame of a window to `sgn predict --live` to reading its line."""
    rng = np.random.default_rng(0)
    lines = [
        json.dumps(frame).encode() + b"\n"
        for frame in rng.normal(size=(60, 25, 3)).round(4).tolist()
    ]
    arguments = ("--live", "--checkpoint", str(model), "--views", str(num_views))
    durations_s: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "sgnray.cli", "predict", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for decision in range(NUM_DECISIONS + 10):
            if decision == 10:
                before = psutil.Process(process.pid).cpu_times()
            block = [lines[(decision * 15 + number) % 60] for number in range(15)]
            process.stdin.write(b"".join(block[:-1]))
            time.sleep(0.02)  # the frames before the last one have been read by then
            start = time.perf_counter()
            process.stdin.write(block[-1])
            found = json.loads(process.stdout.readline())
            durations_s.append(time.perf_counter() - start)
            assert found["frame"] == 15 * (decision + 1)
        after = psutil.Process(process.pid).cpu_times()
        process.stdin.close()
    cpu_s = (after.user + after.system - before.user - before.system) / NUM_DECISIONS
    middle, high, longest = np.percentile(durations_s[10:], (50, 99, 100)) * 1e3
    print(f"\nlive, {num_views} views, one thread, {NUM_DECISIONS} decisions after 10 others")
    print(f"  frame to label {middle:6.2f} ms (99th percentile {high:.2f}, longest {longest:.2f})")
    print(f"  processor time {cpu_s * 1e3:6.2f} ms for 15 frames and a decision")
