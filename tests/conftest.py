"""What all tests share: a guard on global generators, and a tiny dataset made of synthetic text."""

from __future__ import annotations

import atexit
import logging
import os
import random
import re
import shutil
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

# Set before torch is imported, and for every command that a test starts: on a busy machine, threads
# that wait for each other in loops made these small tensors up to a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each process of a test run only finds the Ray clusters that its own tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="sgn-", dir=os.environ["RAY_TMPDIR"])
else:  # registered before Ray's own end, which comes first and still writes there
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="sgn-", dir="/tmp")  # short, for sockets
    atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)
# Background jobs of a shell and their children ignore Ctrl-C; tests of Ctrl-C need the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

with suppress(ImportError):  # the first import draws from Python's generator, outside of any test
    import rich.style  # noqa: F401

from sgnray.config import Recipe, load_recipe
from sgnray.data import store
from sgnray.data.skeleton import Skeleton
from sgnray.data.store import SkeletonDataset, open_dataset

# Files with an expensive fixture, such as a Ray cluster, which each process would build again.
SHARES_A_FIXTURE = frozenset(
    {
        "tests/browser/test_player.py",
        "tests/browser/test_report_page.py",
        "tests/integration/test_examples.py",
        "tests/integration/test_predict_ray.py",
        "tests/integration/test_train_ray.py",
        "tests/integration/test_tune.py",
        "tests/integration/test_world_sizes.py",
        "tests/unit/export/test_model.py",
    }
)

FLAT17 = Skeleton(
    "flat17", tuple(f"joint {number}" for number in range(17)), ((1, 0), (2, 1)), None, 2
)


def pytest_configure(config):
    """Hide GPUs from all tests but those for GPUs: the others state what CPUs do."""
    if not re.search(r"(?<!not )\b(gpu|bench)\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Use all cores for the whole suite; files that are named run in this process."""
    option = config.option
    is_interactive = option.collectonly or option.usepdb
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # it would start workers of its own
    is_free = not is_interactive and not is_worker and not option.file_or_dir
    if is_free and getattr(option, "numprocesses", 0) is None:
        has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
        option.numprocesses = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        option.dist = "loadscope"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out a test at a time, but files of SHARES_A_FIXTURE as a whole.

    "load" would give all that start Ray to one process; xdist's groups do nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return path if path in SHARES_A_FIXTURE else nodeid

    return Scheduler(config, log)


def pytest_collection_modifyitems(config, items):
    """Choose what runs: measurements by their marker only, GPU tests likewise.

    Slow tests run by their marker or where their file is named. Those that start Ray are the
    longest, so they come first.
    """
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    if "bench" not in config.option.markexpr:
        _skip(items, "bench", "a measurement: pytest -m bench -s")
    if "slow" not in config.option.markexpr:
        named = {Path(word.partition("::")[0]).resolve() for word in config.option.file_or_dir}
        unnamed = [item for item in items if item.path not in named]
        _skip(unnamed, "slow", "takes minutes: pytest -m slow")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "needs a GPU: pytest -m gpu")


def _skip(items, marker, reason):
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def global_generators_untouched(request):
    """Every draw takes a seed: nothing may advance numpy's or Python's global generator."""
    if request.node.get_closest_marker("ray"):  # ray.init draws names from Python's
        yield
        return
    # numpy draws its state lazily, so the numbers are compared and not the objects.
    before = (str(np.random.get_state()), random.getstate())
    yield
    assert (str(np.random.get_state()), random.getstate()) == before


@pytest.fixture
def tracker_environment(monkeypatch):
    """Hide the settings of trackers."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def one_thread():
    """On a busy machine, two threads of torch that wait for each other take seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def sgn(capsys):
    """Run `sgn ARGUMENTS` and give exit code, stdout and stderr."""
    # Imported here: CI tests other Pythons in a checkout, which has no sgnray.cli.
    from sgnray.cli import main, render

    logger = logging.getLogger("sgnray")
    before = (logger.level, logger.propagate, list(logger.handlers))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.run(arguments)
        printed = capsys.readouterr()
        return Outcome(caught.value.code, printed.out, printed.err)

    yield run
    render.set_verbosity(0)  # -q and -v of one test are not those of the next
    logging.captureWarnings(False)
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1:]


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory) -> Path:
    """27 raw recordings: 3 classes, 3 subjects, 3 cameras."""
    from sgnray.synth.generate import synthesize

    folder = tmp_path_factory.mktemp("synth") / "raw"
    synthesize(folder, num_classes=3, num_subjects=3, num_setups=2, num_replications=1)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tiny_raw, tmp_path_factory) -> Path:
    """The folder of the prepared tiny dataset."""
    from sgnray.prepare import prepare_dataset

    return prepare_dataset(tiny_raw, out=tmp_path_factory.mktemp("data") / "synth").folder


@pytest.fixture(scope="session")
def tiny_dataset(tiny_folder) -> SkeletonDataset:
    return open_dataset(tiny_folder)


# A model whose epoch over the tiny dataset takes a fraction of a second.
TINY = (
    "data.num_segments=8",
    "model.embedding_width=8",
    "model.affinity_width=8",
    "model.graph_widths=[8, 8, 8]",
    "model.frame_width=16",
    "optim.batch_size=6",
)


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A recipe for the tiny dataset."""
    few = ("optim.milestones=[3]", "train.num_epochs=4", "train.precision=float32")
    return load_recipe("synth-cv", [*TINY, *few, "evaluate.num_views=2", "evaluate.turn_rad=0.5"])


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe, tiny_folder, tmp_path_factory) -> Path:
    """The folder of a run of the tiny recipe."""
    from sgnray.train import train_run

    runs_dir = tmp_path_factory.mktemp("runs")
    train_run(tiny_recipe, tiny_folder, runs_dir=runs_dir, name="first", device="cpu")
    return runs_dir / "first"


@pytest.fixture(scope="session")
def write_dataset():
    """Write a dataset of one pose per frame; `clips` are dicts with poses and known columns."""

    def write(folder, clips, *, dataset="mine", skeleton=FLAT17, splits=None, num_classes=2):
        folder.mkdir(parents=True)
        clips = sorted(clips, key=lambda clip: clip["name"])
        rows = [
            {**clip, "num_frames": length, "frame": list(range(length)), "body": [0] * length}
            for clip, length in ((clip, len(clip["poses"])) for clip in clips)
        ]
        fields = [field for field in store.clips_schema(skeleton) if field.name != "poses"]
        batch = pa.RecordBatch.from_pylist(rows, pa.schema(fields))
        store.write_dataset(
            folder,
            {name: batch.column(name) for name in batch.schema.names},
            np.concatenate([clip["poses"] for clip in clips]).astype(np.float32),
            dataset=dataset,
            skeleton=skeleton,
            class_names=tuple(f"class {number}" for number in range(num_classes)),
            source={},
            splits=splits,
        )
        return folder

    return write


@pytest.fixture(scope="session")
def flat_folder(write_dataset, tmp_path_factory):
    """24 clips of 17 joints in 2D by 4 subjects; class 1 moves to the other side."""
    rng = np.random.default_rng(0)
    clips = []
    for number in range(24):
        side = np.linspace(0, 1, 12)[:, None, None] * (1 if number % 2 else -1)
        poses = rng.normal(size=(1, 17, 2)) + side + 0.01 * rng.normal(size=(12, 17, 2))
        clips.append(
            {
                "name": f"clip-{number:02}",
                "label": number % 2,
                "subject": number // 6,
                "poses": poses,
            }
        )
    names = [clip["name"] for clip in clips]
    splits = {"people": {"train": names[:18], "test": names[18:]}}
    return write_dataset(tmp_path_factory.mktemp("flat") / "mine", clips, splits=splits)


@pytest.fixture(scope="session")
def save_like_the_reference():
    """Write an untrained model as the official code does: its keys, its four-axis convolutions."""

    def save(path, *, num_classes, num_joints=25):
        import torch

        from sgnray.model import SGN
        from sgnray.model.reference import reference_keys

        model = SGN(num_classes, num_joints)
        state = {}
        for ours, key in reference_keys(model).items():
            value = model.state_dict()[ours]
            if key == "cnn.cnn1.weight":
                value = value.view(value.shape[0], 3, -1).permute(0, 2, 1).unsqueeze(2)
            elif value.ndim == 2 and key != "fc.weight":
                value = value[..., None, None]
            state[key] = value
        torch.save({"epoch": 1, "state_dict": state}, path)

    return save


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium without a window, driven by playwright, which downloads nothing."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()
