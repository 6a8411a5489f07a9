"""What is drawn from a search space, and how a space and its values are written as text."""

import math

import pytest

from sgnray.config import load_recipe
from sgnray.tune.space import Choice, Range, Space, as_overrides, dump_space
from sgnray.tune.space_file import load_space

SPACE = Space(
    "mine",
    {
        "data.num_segments": Choice((10, 20, 30)),
        "model.embedding_width": Range("integer", 8, 11),
        "model.dropout": Range("uniform", 0.0, 0.5),
        "optim.learning_rate": Range("log_uniform", 1e-4, 1e-2),
    },
)


def test_a_draw_depends_on_the_seed_and_its_index_alone():
    drawn = [SPACE.draw(0, index) for index in range(20)]
    assert [SPACE.draw(0, index) for index in reversed(range(20))] == drawn[::-1]
    assert len({tuple(values.items()) for values in drawn}) == 20
    assert [SPACE.draw(1, index) for index in range(20)] != drawn


def test_a_key_that_is_added_at_the_end_changes_no_other():
    longer = Space("mine", {**SPACE.axes, "optim.weight_decay": Range("uniform", 0.0, 1.0)})
    for index in range(5):
        assert longer.draw(0, index).items() >= SPACE.draw(0, index).items()


def test_every_value_is_drawn_and_none_beyond_the_ends():
    drawn = [SPACE.draw(0, index) for index in range(400)]
    assert {values["data.num_segments"] for values in drawn} == {10, 20, 30}
    assert {values["model.embedding_width"] for values in drawn} == {8, 9, 10, 11}
    dropouts = [values["model.dropout"] for values in drawn]
    assert 0 <= min(dropouts) < 0.02
    assert 0.48 < max(dropouts) <= 0.5
    # Uniform in the logarithm: half of the draws lie below the geometric mean.
    rates = [values["optim.learning_rate"] for values in drawn]
    assert 1e-4 <= min(rates) < 1.1e-4
    assert 9e-3 < max(rates) <= 1e-2
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 400 < 0.6


@pytest.mark.parametrize("axis", SPACE.axes.values(), ids=str)
def test_extreme_draws_are_the_ends_of_the_range(axis):
    extremes = axis.extremes()
    almost_one = math.nextafter(1, 0)
    assert axis.draw(0.0) == min(extremes)
    assert axis.draw(almost_one) == max(extremes)


def test_drawn_numbers_are_short_and_stay_in_a_narrow_range():
    assert Range("log_uniform", 1e-4, 1e-2).draw(0.3) == 0.0003981
    assert Range("uniform", 0.123456, 0.123457).draw(0.5) in (0.123456, 0.123457)


def test_a_grid_is_every_combination_in_the_order_of_the_file():
    space = Space("mine", {"a.b": Choice((1, 2)), "c.d": Choice(("x", "y"))})
    assert space.num_points() == 4
    assert list(space.grid()) == [
        {"a.b": 1, "c.d": "x"},
        {"a.b": 1, "c.d": "y"},
        {"a.b": 2, "c.d": "x"},
        {"a.b": 2, "c.d": "y"},
    ]


def test_a_written_space_reads_back(tmp_path, tiny_recipe):
    path = tmp_path / "space.yaml"
    axes = {**SPACE.axes, "model.graph_widths": Choice(([8, 8, 8], [16, 16, 16]))}
    path.write_text(dump_space(Space("mine", axes)))
    assert load_space(str(path), tiny_recipe).axes == axes


def test_values_as_overrides_give_the_recipe_that_the_values_give():
    values = {
        "optim.learning_rate": 1.234e-05,
        "optim.lr_scaling": "sqrt",
        "model.graph_widths": [8, 8, 8],
        "data.num_segments": 10,
    }
    overrides = as_overrides(values)
    assert overrides[0] == "optim.learning_rate=1.234e-05"
    assert load_recipe("ntu60-cs", overrides) == load_recipe("ntu60-cs").replacing(values)


def test_overrides_are_written_as_yaml():
    values = {"a.b": True, "a.c": ["x", 1], "a.d": "x"}
    assert as_overrides(values) == ("a.b=true", 'a.c=["x", 1]', "a.d=x")
