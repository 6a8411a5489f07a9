"""What all tests share: a guard on global generators, and a tiny dataset made of synthetic text."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

# Before anything imports torch, and for every command that a test starts: threads that wait for
# each other in loops made these small tensors up to a hundred times slower beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from sgnray.config import Recipe, load_recipe
from sgnray.data.store import SkeletonDataset, open_dataset


def pytest_collection_modifyitems(config, items):
    """Measurements run only where they are asked for by name, GPU tests only where there is one."""
    if "bench" not in config.option.markexpr:
        _skip(items, "bench", "a measurement: pytest -m bench -s")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "needs a GPU")


def _skip(items, marker, reason):
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def global_generators_untouched(request):
    """Draws are by meaning: nothing may move numpy's or Python's global generator."""
    if request.node.get_closest_marker("ray"):  # ray.init draws names from Python's
        yield
        return
    # numpy draws its state lazily, so the numbers are compared and not the objects.
    before = (str(np.random.get_state()), random.getstate())
    yield
    assert (str(np.random.get_state()), random.getstate()) == before


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory) -> Path:
    """27 raw recordings: 3 classes, 3 subjects, 3 cameras."""
    from sgnray.prepare.synthetic import synthesize

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


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A recipe for the tiny dataset whose epoch takes a fraction of a second."""
    return load_recipe(
        "synth-cv",
        [
            "data.num_segments=8",
            "model.embedding_width=8",
            "model.affinity_width=8",
            "model.graph_widths=[8, 8, 8]",
            "model.frame_width=16",
            "optim.batch_size=6",
            "optim.milestones=[3]",
            "train.num_epochs=4",
            "train.precision=float32",
            "evaluate.num_views=2",
        ],
    )
