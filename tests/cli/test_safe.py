"""Control characters in text from files are escaped: they cannot move the cursor."""

import pytest

from sgnray.cli import render
from sgnray.cli.tables import SafeTable, clean
from sgnray.errors import InputError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, \u00e9\u4e2d", "plain text, \u00e9\u4e2d"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9bC1", "\\x9bC1"),
        ("a\u202eb", "a\\u202eb"),
        ("two\nlines", "two\nlines"),
        ("bell\a", "bell\\x07"),
    ],
)
def test_clean(text, shown):
    assert clean(text) == shown


def test_tables_results_and_errors_are_clean(capsys):
    table = SafeTable("name")
    table.add_row("\x1b]0;own\x07")
    render.result(table, "\x1b[2J")
    render.error(InputError("\x1b[2J", where="\x1b[2J", now="\x9b"))
    shown = "".join(capsys.readouterr())
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}
    assert shown.count("x1b") == 4
