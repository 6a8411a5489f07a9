"""A small planned search."""

import pytest

from sgnray.tune.plan import plan_search
from sgnray.tune.space import Choice, LogUniform, Space


@pytest.fixture
def plan(tiny_recipe):
    """Three trials of two epochs, for the tiny recipe's four."""
    axes = {
        "optim.learning_rate": LogUniform(1e-3, 1e-1),
        "data.num_segments": Choice((4, 6)),
    }
    return plan_search(
        tiny_recipe,
        Space("mine", axes),
        search="random",
        num_trials=3,
        num_epochs=2,
        dataset_checksum="sha256:00",
    )
