from __future__ import annotations

import inspect
import pickle

import pytest

from sgnray import errors
from sgnray.errors import (
    MissingExtraError,
    Problem,
    RecipeError,
    SgnError,
    count_of,
    count_problems,
    first_line,
    import_extra,
    last_line,
    show_first,
)

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SgnError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_can_be_pickled(kind):
    error = kind("what", where="here", now="do this", problems=[Problem("key", "wrong")])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == "what (here); key: wrong; do this"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {
        line.split()[0]: len(line) - len(line.lstrip())
        for line in errors.__doc__.splitlines()
        if line.split() and line.split()[0].endswith("Error")
    }
    assert set(drawn) == {kind.__name__ for kind in KINDS}
    for kind in KINDS:
        assert drawn[kind.__name__] == 4 * (len(kind.__mro__) - len(SgnError.__mro__))


def test_exit_codes():
    assert SgnError.exit_code == 1
    assert RecipeError.exit_code == 2


def test_a_missing_extra_names_itself():
    with pytest.raises(MissingExtraError, match="needs the package optunax") as caught:
        import_extra("optunax.samplers", extra="tune")
    assert caught.value.now == "pip install 'sgnray[tune]'"
    assert import_extra("json", extra="tune").__name__ == "json"


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (ValueError("one\ntwo"), "one", "two"),
        (OSError("\n  one\n"), "one", "one"),
        (KeyError(), "KeyError", "KeyError"),
        (RuntimeError("  "), "RuntimeError", "RuntimeError"),
    ],
)
def test_lines_of_any_exception(error, first, last):
    assert (first_line(error), last_line(error)) == (first, last)


def test_a_noun_follows_its_number():
    counts = ((0, "0 GPUs"), (0.25, "0.25 GPUs"), (1.0, "1 GPU"), (1_234_567, "1,234,567 GPUs"))
    assert all(count_of(number, "GPU") == text for number, text in counts)


def test_the_first_of_some_names_is_shown():
    assert show_first(["a"]) == "a"
    assert show_first(["a", "b"]) == "a, and 1 other"
    assert show_first(["a", "b", "c"]) == "a, and 2 others"


def test_problems_are_counted():
    assert count_problems(["a"]) == "1 problem"
    assert count_problems(["a", "b"]) == "2 problems"
