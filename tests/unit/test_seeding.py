from __future__ import annotations

import numpy as np

from sgnray import seeding


def test_a_draw_depends_on_seed_purpose_and_epoch():
    base = seeding.uniform(1, "poses", 2, (4, 3))
    assert np.array_equal(base, seeding.uniform(1, "poses", 2, (4, 3)))
    others = [
        seeding.uniform(2, "poses", 2, (4, 3)),
        seeding.uniform(1, "rotation", 2, (4, 3)),
        seeding.uniform(1, "poses", 3, (4, 3)),
    ]
    assert not any(np.array_equal(base, other) for other in others)


def test_rows_do_not_depend_on_how_many_there_are():
    long = seeding.uniform(1, "poses", 2, (1000, 20))
    assert np.array_equal(long[:7], seeding.uniform(1, "poses", 2, (7, 20)))
    assert long.min() >= 0
    assert long.max() < 1


def test_draws_are_pinned():
    # A change of these numbers would silently change every published run.
    assert seeding.permutation(0, "order", 0, 8).tolist() == PINNED_ORDER
    assert seeding.derive_seed(0, "dropout", 3, 1) == PINNED_SEED


PINNED_ORDER = [3, 0, 5, 7, 1, 4, 2, 6]
PINNED_SEED = 6140224356122570712
