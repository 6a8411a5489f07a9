"""Numbers of workers, as a user gives them."""

from __future__ import annotations

import pytest

from sgnray.distributed.resources import Workers, parse_workers
from sgnray.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted", "fewest", "most", "is_elastic"),
    [
        ("0", 0, 0, 0, False),
        ("8", 8, 8, 8, False),
        ("1:4", (1, 4), 1, 4, True),
        ("2:2", (2, 2), 2, 2, False),
    ],
)
def test_a_number_or_a_range(text, wanted, fewest, most, is_elastic):
    assert parse_workers(text) == wanted
    workers = Workers.of(wanted)
    assert (workers.fewest, workers.most, workers.is_elastic) == (fewest, most, is_elastic)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1:", ":4", "4:1", "1:2:3", "1.5", " 2", "\u0663", "9" * 5000]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="invalid number of workers") as caught:
        parse_workers(text)
    assert caught.value.where == "--workers"


@pytest.mark.parametrize("wanted", [-1, (4, 1), (-1, 2)])
def test_the_library_refuses_invalid_numbers_too(wanted):
    with pytest.raises(UsageError, match="invalid number of workers"):
        Workers.of(wanted)


def test_a_range_that_starts_at_0_is_refused():
    with pytest.raises(UsageError, match="cannot grow"):
        parse_workers("0:4")
