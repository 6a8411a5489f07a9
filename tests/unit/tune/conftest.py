"""A small planned search."""

import pytest

from sgnray.tune.plan import Plan
from sgnray.tune.sampler import make_sampler
from sgnray.tune.space import Choice, Range, Space

SPACE = Space(
    "mine",
    {"optim.learning_rate": Range("log_uniform", 1e-3, 1e-1), "data.num_segments": Choice((4, 6))},
)


@pytest.fixture
def make_plan(tiny_recipe):
    """Plan three trials of two epochs, for the tiny recipe's four, or something else."""

    def _make_plan(**changes):
        settings = {
            "recipe": tiny_recipe,
            "space": SPACE,
            "search": "random",
            "scheduler": "asha",
            "num_trials": 3,
            "num_epochs": 2,
            "num_seeds": 1,
            "num_workers": 1,
            "dataset_checksum": "sha256:00",
        }
        return Plan(**{**settings, **changes})

    return _make_plan


@pytest.fixture
def plan(make_plan):
    return make_plan()


@pytest.fixture
def sampler(plan):
    return make_sampler(plan.space, plan.search, plan.num_trials, plan.recipe.train.seed)
