"""What is shown or recorded is safe: no control characters of files, and no credentials."""

import pytest

from sgnray.cli import render
from sgnray.cli.options import command_line
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


def test_a_recorded_command_has_no_credentials(monkeypatch):
    server = "endpoint_override=host:9000"
    typed = f"sgn train s3://key:secret@bucket/a --runs=s3://k:s@b/runs?{server}&secret_key=s"
    typed += " --data hdfs://me@host:8020/x optim.learning_rate=0.1 --name a@b hdfs:///x"
    recorded = f"sgn train s3://bucket/a '--runs=s3://b/runs?{server}'"
    recorded += " --data hdfs://host:8020/x optim.learning_rate=0.1 --name a@b hdfs:///x"
    monkeypatch.setattr("sys.argv", typed.split())
    assert command_line() == recorded
