import pytest

from sgnray.data.skipped import Skipped, read_skipped, write_skipped
from sgnray.errors import InputError

AWKWARD = ("a, b.txt", 'a "b"', "two\nlines", "ü €", "")


def test_it_reads_what_was_written(tmp_path):
    skipped = tuple(Skipped(name, f"why {name}") for name in AWKWARD)
    write_skipped(tmp_path / "skipped.csv", skipped)
    assert read_skipped(tmp_path / "skipped.csv") == skipped


def test_an_empty_list_is_read_back(tmp_path):
    write_skipped(tmp_path / "skipped.csv", ())
    assert (tmp_path / "skipped.csv").read_text() == "file,reason\n"
    assert read_skipped(tmp_path / "skipped.csv") == ()


def test_names_that_csv_or_utf8_cannot_hold_are_escaped(tmp_path):
    write_skipped(tmp_path / "skipped.csv", [Skipped("a\rb", "x"), Skipped("\udcff", "y\r")])
    assert read_skipped(tmp_path / "skipped.csv") == (
        Skipped("a\\rb", "x"),
        Skipped("\\udcff", "y\\r"),
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "it is missing"),
        (b"", "it does not begin with file,reason"),
        (b"name,why\na,b\n", "it does not begin with file,reason"),
        (b"file,reason\na,b\nc\n", "row 3 has 1 of 2 fields"),
        (b'file,reason\na,"b', "unexpected end of data"),
        (b"file,reason\n\xff,b\n", "invalid start byte"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path, data, what):
    path = tmp_path / "skipped.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_skipped(path)
    assert what in caught.value.what
    assert caught.value.where == str(path)


def test_a_long_name_or_reason_is_shortened(tmp_path):
    """csv writes any field, and reads none of more than 131,072 characters."""
    path = tmp_path / "skipped.csv"
    write_skipped(path, [Skipped("n" * 200_000, "r" * 200_000), Skipped("b", "empty")])
    long, short = read_skipped(path)
    assert (long.name[:5], long.name[-5:]) == ("nnnnn", "nn...")
    assert long.reason.endswith("rr...")
    assert short == Skipped("b", "empty")
