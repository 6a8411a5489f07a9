"""Errors of a wrong recipe: every problem, where it is, and what was probably meant."""

import pytest

from sgnray.config import list_recipes, load_recipe, parse_recipe
from sgnray.errors import RecipeError


@pytest.fixture
def fail(tmp_path):
    def _fail(text, *overrides):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as caught:
            load_recipe(str(path), overrides)
        assert caught.value.exit_code == 2
        return caught.value, str(path)

    return _fail


def rows(error):
    return [(problem.where, problem.what) for problem in error.problems]


def test_all_problems_of_a_file_are_listed_at_once(fail):
    error, path = fail(
        "base: ntu60-cs\n"
        "optim:\n"
        "  lerning_rate: 0.1\n"
        "  batch_size: true\n"
        "  milestones: [30, 20]\n"
        "data:\n"
        "  num_segments: 0\n"
        "  case: C Sub\n"
        "modle: {}\n"
    )
    assert error.what == f"{path} has 6 problems"
    assert error.where == path
    assert error.now == "correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key"
    assert sorted(rows(error)) == [
        (
            "data.case (line 8)",
            "must be the name of a case, such as cs, got 'C Sub'",
        ),
        ("data.num_segments (line 7)", "must be an integer from 1 to 10,000, got 0"),
        ("modle (line 9)", "unknown section; did you mean model?"),
        ("optim.batch_size (line 4)", "must be a positive integer, got true"),
        ("optim.lerning_rate (line 3)", "unknown key; did you mean optim.learning_rate?"),
        (
            "optim.milestones (line 5)",
            "must be a list of ascending positive integers, like [60, 90, 110], got [30, 20]",
        ),
    ]


def test_problems_of_the_command_line_and_the_file_are_listed_together(fail):
    error, _ = fail("data:\n  num_segments: x\n", "train.epochs=3", "train.seed=-1", "optim")
    assert rows(error) == [
        ("train.epochs=3 (command line)", "unknown key; did you mean train.num_epochs?"),
        (
            "optim (command line)",
            "is not section.key=value, like optim.batch_size=32; name a case with --case, a recipe "
            "with --recipe",
        ),
        ("data.num_segments (line 2)", "must be an integer from 1 to 10,000, got 'x'"),
        ("train.seed (command line)", "must be an integer of at least 0, got -1"),
    ]


def test_problems_of_the_command_line_alone_do_not_blame_the_recipe():
    with pytest.raises(RecipeError) as caught:
        load_recipe("ntu60-cs", ["train.num_epochs=0"])
    assert caught.value.what == "the command line has 1 problem"
    assert caught.value.where == "overrides of ntu60-cs"


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("learning_rate=1", "unknown section; did you mean optim.learning_rate?"),
        ("train.learning_rate=1", "unknown key; did you mean optim.learning_rate?"),
        ("epochs=1", "unknown section; did you mean train.num_epochs?"),
        ("evaluate.views=1", "unknown key; did you mean evaluate.num_views?"),
        ("optim.batch=1", "unknown key; did you mean optim.batch_size?"),
        ("optim.steps=1", "unknown key; did you mean optim.milestones?"),
        ("data.joint=1", "unknown key; did you mean data.joint_dropout?"),
        ("evaluate.x=1", "unknown key; evaluate has num_views"),
        ("x.y=1", "unknown key; a recipe has data, model, optim, train, evaluate"),
        ("optim.decay.x=1", "unknown key; optim has"),
        ("=1", "unknown section; a recipe has data, model, optim, train, evaluate"),
        ("evaluate=3", "is a section; set one of its keys: num_views"),
        ("train.seed=[", "is not a value: "),
        ("train.seed={a: 1}", "must be an integer of at least 0, got {"),
        ("train.seed=", "must be an integer of at least 0, got nothing"),
        ("train.seed=010", "must be an integer of at least 0, got '010'"),
        ("train.seed=1:30", "must be an integer of at least 0, got '1:30'"),
        ("train.seed=1.0", "must be an integer of at least 0, got 1.0"),
        ("train.seed=yes", "must be an integer of at least 0, got 'yes'"),
        ("data.dataset=2026-01-01", None),
        ("data.dataset=../x", "must be a name such as ntu60, got '../x'"),
        ("optim.learning_rate=.nan", "must be a positive number, got NaN"),
        ("optim.learning_rate=.inf", "must be a positive number, got Infinity"),
        ("optim.weight_decay=-1", "must be a number of at least 0, got -1"),
        ("optim.label_smoothing=1", "must be a number from 0 to 0.5, got 1"),
        ("optim.label_smoothing=true", "must be a number from 0 to 0.5, got true"),
        (
            "train.selection=validate",
            "must be one of last, validation, test, got 'validate'; did you mean validation?",
        ),
        ("data.case=c sub", "must be the name of a case, such as cs, got 'c sub'"),
        ("optim.lr_scaling=square", "must be one of none, linear, sqrt, got 'square'"),
        ("optim.milestones=[0]", "must be a list of ascending positive integers"),
        ("optim.milestones=[5, 5]", "must be a list of ascending positive integers"),
        ("model.graph_widths=[]", "must be a list of positive integers"),
        ("model.graph_widths=12", "must be a list of positive integers"),
        ("train.seed=!!python/name:os.system ", "is not a value: "),
    ],
)
def test_overrides(override, what):
    if what is None:
        load_recipe("ntu60-cs", [override])
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe("ntu60-cs", [override])
    ((where, message),) = rows(caught.value)
    assert message.startswith(what)
    assert where.endswith("(command line)")
    assert where.startswith(override.partition("=")[0])


def test_a_key_given_twice(fail):
    error, _ = fail("train:\n  seed: 1\n  seed: 2\n")
    assert rows(error) == [("train.seed (line 3)", "given twice, first on line 2")]


def test_a_problem_of_the_base_names_the_base(fail, tmp_path):
    (tmp_path / "ground.yaml").write_text("train:\n  seed: x\n")
    error, _ = fail("base: ground.yaml\n")
    assert rows(error) == [
        (
            f"train.seed ({tmp_path}/ground.yaml line 2)",
            "must be an integer of at least 0, got 'x'",
        )
    ]


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("optim: [\n", "is not valid YAML: ", 2),
        ("optim:\n\tdecay: 1\n", "is not valid YAML: found character '\\t'", 2),
        ("a: 1\n---\nb: 1\n", "is not valid YAML: but found another document", 2),
        ("optim: !!python/object:os.x {}\n", "is not valid YAML: could not determine", 1),
        ("? [a]\n: 1\n", "is not valid YAML: found unhashable key", 1),
        ("{a: " * 5000, "is not valid YAML: ", None),
        (b"optim: \x00\n", "is not valid YAML: ", None),
        ("", "is empty", None),
        ("# only a comment\n", "is empty", None),
        ("- optim\n", "is not a mapping of sections", None),
        ("optim\n", "is not a mapping of sections", None),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused(fail, text, what, line):
    error, path = fail(text)
    assert error.what.startswith(f"{path} {what}")
    assert error.where == (f"{path}:{line}" if line else path)
    assert error.now


@pytest.mark.parametrize(
    ("base", "what", "now"),
    [
        ("ntu60-cv", "its base ntu60-cv also has a base, and only", "write 'base: ntu60-cs'"),
        ("ntu60", "its base cannot be used: recipe 'ntu60' not found; did", "choose one"),
        ("./no.yaml", "its base cannot be used: recipe file not found", "give the path"),
        ("[a]", "base must be the name of a recipe or a path, got ['a']", "write 'base: "),
    ],
)
def test_bases_that_cannot_be_used(fail, base, what, now):
    error, path = fail(f"train:\n  seed: 1\nbase: {base}\n")
    assert error.what.startswith(what)
    assert error.where == f"{path}:3"
    assert error.now.startswith(now)


def test_a_newer_recipe_is_refused(fail):
    error, path = fail("format_version: 2\n")
    assert error.what == "the recipe has format version 2, and this sgnray reads 1"
    assert (error.where, error.now) == (f"{path}:1", "update sgnray")


@pytest.mark.parametrize("version", ["0", "x", "true", "1.5"])
def test_an_invalid_format_version_is_refused(fail, version):
    error, _ = fail(f"format_version: {version}\n")
    assert error.now == "write 'format_version: 1'"


def test_a_recipe_that_cannot_be_read(fail, tmp_path):
    assert fail(b"\xff\xfe")[0].what == "the recipe file is not UTF-8 text"
    with pytest.raises(RecipeError, match="recipe file not found") as caught:
        load_recipe(str(tmp_path / "nowhere.yaml"))
    assert caught.value.where == str(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="recipe file not found") as caught:
        load_recipe("~nobody-of-this-name/x.yaml")
    assert caught.value.where == "~nobody-of-this-name/x.yaml"
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(f"{tmp_path}/")


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(RecipeError) as caught:
        load_recipe("ntu60-xsub")
    assert caught.value.what == "recipe 'ntu60-xsub' not found; did you mean ntu60-cs?"
    assert caught.value.where == f"shipped recipes: {', '.join(list_recipes())}"


def test_a_recipe_from_a_checkpoint_is_checked_too():
    with pytest.raises(RecipeError, match=r"model\.pt has 2 problems") as caught:
        parse_recipe({"train": {"seed": "x"}, "new": {}}, source="model.pt")
    assert [where for where, _ in rows(caught.value)] == ["train.seed", "new"]


def test_a_warmup_as_long_as_training_is_listed_with_other_problems(fail):
    error, _ = fail("optim:\n  warmup_epochs: 5\n  decay: -1\ntrain:\n  num_epochs: 5\n")
    assert rows(error) == [
        ("optim.decay (line 3)", "must be a positive number, got -1"),
        ("optim.warmup_epochs (line 2)", "must be less than train.num_epochs, which is 5, got 5"),
    ]
    assert load_recipe("ntu60-cs", ["optim.warmup_epochs=5", "train.num_epochs=6"])
    assert load_recipe("ntu60-cs", ["train.num_epochs=1"])


def test_too_few_epochs_for_the_warmup_are_reported_for_the_command_line():
    with pytest.raises(RecipeError) as caught:
        load_recipe("nwucla-cv-best", ["train.num_epochs=3"])
    assert caught.value.what == "the command line has 1 problem"
    assert rows(caught.value) == [
        (
            "train.num_epochs (command line)",
            "must be more than optim.warmup_epochs, which is 5, got 3",
        )
    ]


@pytest.mark.parametrize("text", ["train.num_epochs=0", "train.num_epochs=x", "train.num_epochs="])
def test_an_invalid_number_of_epochs_is_not_compared_with_the_warmup(text):
    with pytest.raises(RecipeError) as caught:
        load_recipe("ntu60-cs", [text, "optim.warmup_epochs=500"])
    assert [where for where, _ in rows(caught.value)] == ["train.num_epochs (command line)"]
