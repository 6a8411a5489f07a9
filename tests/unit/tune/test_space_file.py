"""What a search space file may contain, conditions and rows too, and what is refused in one."""

import pytest

from sgnray.config import load_recipe, recipe_for
from sgnray.config.document import list_shipped
from sgnray.errors import RecipeError
from sgnray.tune.space import Choice, Range, dump_space
from sgnray.tune.space_file import load_space


@pytest.fixture
def fail(tmp_path, tiny_recipe):
    def _fail(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as caught:
            load_space(str(path), tiny_recipe)
        assert caught.value.exit_code == 2
        return caught.value, str(path)

    return _fail


def rows(error):
    return {problem.where: problem.what for problem in error.problems}


@pytest.mark.parametrize("name", list_shipped("sgnray.conf.tune"))
@pytest.mark.parametrize("recipe", [("ntu60", "cs"), ("nwucla", "cv"), ("synth", "cs")])
def test_every_shipped_space_can_be_loaded(name, recipe):
    assert load_space(name, recipe_for(*recipe)).keys


def test_the_default_space(tiny_recipe):
    axes = load_space("default", tiny_recipe).axes
    assert {key: next(iter(axis.describe())) for key, axis in axes.items()} == {
        "data.num_segments": "choice",
        "model.embedding_width": "choice",
        "model.dropout": "uniform",
        "optim.learning_rate": "log_uniform",
        "optim.weight_decay": "log_uniform",
        "optim.label_smoothing": "choice",
    }
    assert axes["data.num_segments"] == Choice((10, 20, 30))
    assert axes["optim.learning_rate"] == Range("log_uniform", 3e-4, 3e-3)


def test_all_problems_are_reported_at_once(fail):
    error, path = fail(
        "optim.lerning_rate: {choice: [0.1]}\n"
        "optim: {learning_rate: {choice: [0.1]}}\n"
        "data.num_segments: {choice: [10, 0, x]}\n"
        "data.case: {choice: [cs, cv]}\n"
        "model.dropout: {uniform: [0, 1]}\n"
        "model.embedding_width: {uniform: [8, 64]}\n"
        "model.affinity_width: {range: [8, 64]}\n"
        "model.frame_width: {integers: [8, 64]}\n"
        "optim.weight_decay: {log_uniform: [0, 1e-3]}\n"
        "optim.batch_size: {integer: [8, 16.5]}\n"
        "optim.decay: {uniform: [0.5, 0.1]}\n"
        "optim.label_smoothing: {choice: [0.1, 0.1]}\n"
        "optim.lr_scaling: sqrt\n"
        "optim.milestones: {choice: []}\n"
        "data.rotation_rad: {uniform: [0, .inf]}\n"
    )
    assert error.what == f"the search space {path} has 16 problems"
    assert error.where == path
    assert error.now == "correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key"
    like = "optim.learning_rate: {log_uniform: [3e-4, 3e-3]}"
    kinds = "choice, uniform, log_uniform, integer"
    assert [(problem.where, problem.what) for problem in error.problems] == [
        ("optim.lerning_rate (line 1)", "unknown key; did you mean optim.learning_rate?"),
        ("optim (line 2)", f"is a section; write its keys as optim.key, like {like}"),
        ("data.num_segments (line 3)", "must be an integer from 1 to 10,000, got 0"),
        ("data.num_segments (line 3)", "must be an integer from 1 to 10,000, got 'x'"),
        ("data.case (line 4)", "must be the same in all trials; choose it with --case"),
        ("model.dropout (line 5)", "must be a number from 0 to below 1, got 1.0"),
        (
            "model.embedding_width (line 6)",
            "must be an integer; use {integer: [lowest, highest]}, or {choice: [...]}",
        ),
        ("model.affinity_width (line 7)", f"unknown kind of values 'range'; use one of {kinds}"),
        ("model.frame_width (line 8)", "unknown kind of values 'integers'; did you mean integer?"),
        ("optim.weight_decay (line 9)", "log_uniform must start above 0, got 0"),
        ("optim.batch_size (line 10)", "integer must be two integers, got [8, 16.5]"),
        ("optim.decay (line 11)", "uniform must be ascending, got [0.5, 0.1]"),
        ("optim.label_smoothing (line 12)", "choice has 0.1 twice"),
        ("optim.lr_scaling (line 13)", f"must be one of {kinds} with its values, like {like}"),
        (
            "optim.milestones (line 14)",
            "choice must be a list of values, like {choice: [10, 20, 30]}",
        ),
        (
            "data.rotation_rad (line 15)",
            "uniform must be two numbers, like {uniform: [0, 0.5]}",
        ),
    ]


def test_integers_may_be_searched_where_a_recipe_wants_numbers(tmp_path, tiny_recipe):
    path = tmp_path / "mine.yaml"
    path.write_text("model.frame_width: {integer: [8, 16]}\ndata.rotation_rad: {integer: [0, 1]}\n")
    axes = load_space(str(path), tiny_recipe).axes
    assert axes == {
        "model.frame_width": Range("integer", 8, 16),
        "data.rotation_rad": Range("integer", 0, 1),
    }


def test_a_key_given_twice_is_a_problem(fail):
    error, _ = fail("model.dropout: {choice: [0.1]}\nmodel.dropout: {choice: [0.2]}\n")
    assert rows(error) == {"model.dropout (line 2)": "given twice, first on line 1"}
    error, _ = fail("model.dropout: {choice: [0.1], choice: [0.2]}\n")
    assert rows(error) == {"model.dropout.choice (line 1)": "given twice, first on line 1"}


@pytest.mark.parametrize(
    ("text", "what", "now"),
    [
        ("", "is empty", "write keys and the values to try, for example '"),
        ("- 1\n", "is not a mapping of sections", "write keys and the values to try, for"),
        ("a: {b\n", "is not valid YAML", "write keys and the values to try, for example '"),
        (b"\xff", "the search space file is not UTF-8 text", "give the path of a .yaml file, or"),
        ("format_version: 1\n", "has 1 problem", "correct them"),
        ("format_version: 2\n", "has format version 2", "update sgnray"),
        ("format_version: x\n", "has format version 'x'", "write 'format_version: 1'"),
        ("1: 2\n", "has 1 problem", "correct them"),
        ("true: 2\n", "has 1 problem", "correct them"),
    ],
)
def test_a_file_that_is_not_a_space_is_refused(fail, text, what, now):
    error, path = fail(text)
    assert what in error.what
    assert error.now.startswith(now)
    assert error.where.startswith(path)


def test_a_missing_space_is_refused(tmp_path, tiny_recipe):
    with pytest.raises(RecipeError) as caught:
        load_space("defualt", tiny_recipe)
    assert caught.value.what == "search space 'defualt' not found; did you mean default?"
    with pytest.raises(RecipeError) as caught:
        load_space(str(tmp_path / "none.yaml"), tiny_recipe)
    assert caught.value.what == "search space file not found"
    assert "default" in caught.value.now


HEAD = "optim.schedule: {choice: [steps, cosine]}\n"


@pytest.fixture
def load(tmp_path):
    def _load(text, recipe="ntu60-cs"):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_space(str(path), load_recipe(recipe))

    return _load


def problems_of(load, text):
    with pytest.raises(RecipeError) as caught:
        load(text)
    return [(problem.where, problem.what) for problem in caught.value.problems]


def test_a_key_is_searched_only_where_its_condition_holds(load):
    space = load(HEAD + "optim.warmup_epochs: {integer: [1, 5], when: {optim.schedule: cosine}}\n")
    drawn = [space.draw(0, index) for index in range(40)]
    assert {values["optim.schedule"] for values in drawn} == {"steps", "cosine"}
    for values in drawn:
        assert ("optim.warmup_epochs" in values) == (values["optim.schedule"] == "cosine")


def test_conditions_follow_each_other(load):
    space = load(
        HEAD + "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
        "optim.weight_decay: {choice: [0, 1e-4], when: {optim.warmup_epochs: [5]}}\n"
        "search: grid\n"
    )
    assert space.search == "grid"
    assert {tuple(values.values()) for values in space.grid()} == {
        ("steps",),
        ("cosine", 0),
        ("cosine", 5, 0),
        ("cosine", 5, 1e-4),
    }


@pytest.mark.parametrize("key", ["train.log", "data.pose_device"])
def test_keys_that_do_not_change_the_score_are_refused(load, key):
    values = {"train.log": "[[], [wandb]]", "data.pose_device": "[host, auto]"}[key]
    ((where, what),) = problems_of(load, f"{key}: {{choice: {values}}}\n")
    assert where == f"{key} (line 1)"
    assert what.startswith("does not change the score")


def test_a_condition_on_what_the_recipe_fixes_holds_always_or_is_refused(load):
    space = load("optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: steps}}\n")
    assert not space.conditions
    assert problems_of(
        load, "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
    ) == [
        (
            "optim.warmup_epochs (line 1)",
            "depends on optim.schedule, which is steps in the recipe and not searched above it",
        )
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: {optim.schedule: linear}}\n",
            "needs optim.schedule to be linear, which is not among its choices",
        ),
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: cosine}\n",
            "when must name a key and its values, like when: {optim.schedule: cosine}",
        ),
        (
            "model.dropout: {uniform: [0, 0.5]}\n"
            "optim.warmup_epochs: {choice: [1], when: {model.dropout: 0.1}}\n",
            "depends on model.dropout, which is a range; a condition needs a choice",
        ),
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: {optim.shedule: cosine}}\n",
            "depends on optim.shedule: unknown key; did you mean optim.schedule?",
        ),
        (HEAD + "search: all\n", "must be one of random, grid, tpe"),
    ],
)
def test_an_impossible_condition_is_refused(load, text, what):
    assert [found for _, found in problems_of(load, text)] == [what]


def test_rows_are_trials_of_their_own(load):
    space = load("rows:\n  - {}\n  - {model.dropout: 0.1, data.num_segments: 10}\n")
    assert (space.search, space.num_points()) == ("grid", 2)
    assert space.keys == ("model.dropout", "data.num_segments")
    assert list(space.grid()) == [{}, {"model.dropout": 0.1, "data.num_segments": 10}]


def test_all_problems_of_rows_are_reported_at_once(load):
    found = problems_of(
        load,
        "rows:\n  - {model.dropout: 2}\n  - {model.dropuot: 0.1}\n  - {data.case: cv}\n"
        "model.dropout: {choice: [0.1]}\n",
    )
    assert [where for where, _ in found] == ["model.dropout", "row 1", "row 2", "row 3"]
    assert "is given with rows" in found[0][1]
    assert problems_of(load, "rows: [{}, {}]\n") == [("rows", "contains a trial twice")]
    assert problems_of(load, "rows: 3\n")[0][0] == "rows"


def test_rules_and_rows_round_trip(load, tmp_path):
    text = HEAD + "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
    for content in (text, "rows: [{}, {model.dropout: 0.1}]\n"):
        space = load(content)
        again = load(dump_space(space))
        assert (again.axes, again.conditions, again.rows, again.search) == (
            space.axes,
            space.conditions,
            space.rows,
            space.search,
        )
