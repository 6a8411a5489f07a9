"""The labels of recordings in a labels.csv, which has a row for each: name, label, subject, ..."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from sgnray.errors import (
    ClipError,
    InputError,
    Problem,
    count_of,
    count_problems,
    shorten_problems,
)
from sgnray.prepare.clip import CLIP_NUMBERS, MAX_CLIP_NUMBER, refusal
from sgnray.prepare.readers.format_table import LABELS_FILE, VIDEOS, stem_of
from sgnray.prepare.readers.joint_csv import find_delimiter
from sgnray.prepare.readers.listing import Listing
from sgnray.prepare.readers.raw_files import RawFile, read_file

log = logging.getLogger(__name__)

_COLUMNS = ("name", "label", *CLIP_NUMBERS, "split")
PARTS = ("train", "test")

# The facts of a clip by column, as text, with its `name`.
ClipWords = dict[str, str]
# Gives these facts of a recording; ClipError for one without a label.
Labeler = Callable[[RawFile], ClipWords]


def label_by_table(tables: Sequence[RawFile], listing: Listing) -> Labeler:
    """Find the row of each recording by its name; InputError lists what is wrong in a table."""
    rows: dict[str, ClipWords] = {}
    for table in tables:
        found = _read_table(table)
        twice = [
            Problem(name, f"is something else in another {LABELS_FILE}: write names with folders")
            for name in found
            if rows.get(name, found[name]) != found[name]
        ]
        if twice:
            raise _refuse_table(table, twice)
        rows |= found
    _number_subjects(rows, tables[0])
    videos: dict[str, list[str]] = defaultdict(list)  # rows by their names without .mp4
    for name in rows:
        videos[_without_video(name)].append(name)

    def find_row(path: str) -> str | None:
        parts = PurePosixPath(stem_of(path)).parts
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        short = [_without_video(name) for name in names]
        found = [name for name in names if name in rows]
        found += [videos[name][0] for name in short if len(videos.get(name, ())) == 1]
        return found[0] if found else None

    def describe(file: RawFile) -> ClipWords:
        name = find_row(file.path)
        if name is None:
            raise refusal(f"it is not in {LABELS_FILE}")
        is_exact = stem_of(file.path).endswith(name)
        return rows[name] | ({} if is_exact else {"name": _without_video(name)})

    fits: dict[str | None, dict[str, str]] = defaultdict(dict)
    for path in sorted(file.path for file in listing.files):
        fits[find_row(path)].setdefault(stem_of(path), path)
    several = [(name, found) for name, found in fits.items() if name and len(found) > 1]
    if several:
        raise _refuse_table(tables[0], [_refuse_row(name, found) for name, found in several])
    if unmatched := rows.keys() - fits.keys() - {find_row(item.name) for item in listing.unused}:
        log.warning(
            "no recording found for %s of %s, such as %.80r",
            *(count_of(len(unmatched), "row"), LABELS_FILE, min(unmatched)),
        )
    return describe


def _refuse_row(name: str, fits: Mapping[str, str]) -> Problem:
    """Explain that a row fits these recordings, by their paths without suffixes."""
    shown = " and ".join([*fits.values()][:2] + ["more"] * (len(fits) > 2))
    longest = max(fits, key=lambda path: path.count("/"))
    return Problem(name, f"fits {shown}: write a row for each, with its folder, such as {longest}")


def _without_video(name: str) -> str:
    """Return the name of a recording that may be that of its video: clap-0.mp4 is clap-0."""
    return name[: name.rindex(".")] if name.lower().endswith(VIDEOS) else name


def _number_subjects(rows: dict[str, ClipWords], table: RawFile) -> None:
    """Replace subjects that have names, such as P01, by numbers from 1, in the order of names."""
    names = {words["subject"] for words in rows.values() if "subject" in words}
    subjects = sorted(names, key=lambda name: [part.zfill(9) for part in re.split(r"(\d+)", name)])
    named = [subject for subject in subjects if _is_name(subject)]
    if named and len(named) < len(subjects):
        other = next(subject for subject in subjects if not _is_name(subject))
        what = f"is a name such as {named[0]!r}, and a number such as {other!r}"
        raise _refuse_table(table, [Problem("subject", what)])
    number_of = {subject: str(number) for number, subject in enumerate(named, start=1)}
    if named:
        listed = ", ".join(f"{name} is {number}" for name, number in number_of.items())
        log.info("subjects: %s", listed)
    for name, words in rows.items():
        if named and "subject" in words:
            rows[name] = words | {"subject": number_of[words["subject"]]}


def _is_name(text: str) -> bool:
    return any(map(str.isalpha, text))


def _read_table(table: RawFile) -> dict[str, ClipWords]:
    """Read labels.csv; InputError lists what is wrong with it, line by line."""
    try:
        text = unicodedata.normalize("NFC", read_file(table).decode("utf-8-sig"))
        delimiter = find_delimiter(text.lstrip().partition("\n")[0])
        lines = enumerate(csv.reader(io.StringIO(text), strict=True, delimiter=delimiter), start=1)
        cells = [(number, [cell.strip() for cell in line]) for number, line in lines]
    except UnicodeDecodeError as error:
        what = "it is not UTF-8 text: save it as 'CSV UTF-8'"
        raise _refuse_table(table, [Problem("the file", what)]) from error
    except (csv.Error, ClipError) as error:
        what = error.what if isinstance(error, ClipError) else str(error)
        raise _refuse_table(table, [Problem("the file", what)]) from error
    if cells and cells[0][1] and cells[0][1][0].lower().startswith("sep="):  # of Excel
        del cells[0]
    # Spreadsheets may write empty columns and rows.
    (_, columns), *rows = [line for line in cells if any(line[1])] or [(1, [])]
    columns = [name.lower() for name in columns]
    problems = [
        Problem(f"column {name!r}", f"unknown; there are {', '.join(_COLUMNS)}")
        for name in columns
        if name and name not in _COLUMNS
    ]
    problems += [
        Problem(f"column {name}", "is missing") for name in _COLUMNS[:2] if name not in columns
    ]
    counts = Counter(columns)
    problems += [
        Problem(f"column {name}", "is there twice") for name in _COLUMNS if counts[name] > 1
    ]
    found: dict[str, ClipWords] = {}
    subjects = [dict(zip(columns, row, strict=False)).get("subject") for _, row in rows]
    are_named = all(_is_name(subject) for subject in subjects if subject)
    for number, row in [] if problems else rows:
        pairs = itertools.zip_longest(columns, row, fillvalue="")
        words = {key: cell for key, cell in pairs if cell}
        words["name"] = stem_of(words.get("name", ""))
        wrong = find_wrong_numbers(words, but="subject" if are_named else "")
        wrong += ["it has no name"] if not words["name"] else []
        wrong += ["it has no label"] if "label" not in words else []
        wrong += ["it has more cells than the header"] if "" in words else []
        wrong += [f"{words['name']} is listed twice"] if words["name"] in found else []
        if words.get("split", "test") not in PARTS:
            wrong.append(f"split is {words['split']!r}, neither train nor test")
        problems += [Problem(f"row {number}", what) for what in wrong]
        found[words["name"]] = words
    if problems:
        raise _refuse_table(table, problems)
    return found


def _refuse_table(table: RawFile, problems: list[Problem]) -> InputError:
    return InputError(
        f"{LABELS_FILE} has {count_problems(problems)}",
        where=table.where,
        now="correct it; the guide pose-estimators.md shows one",
        problems=shorten_problems(problems),
    )


def find_wrong_numbers(words: ClipWords, but: str = "") -> list[str]:
    """Explain which facts should be numbers, except `but`, and are not."""
    return [
        f"{key} is {words[key]!r}, not a number from 0 to {MAX_CLIP_NUMBER:,}"
        for key in CLIP_NUMBERS
        if key in words and key != but and not _is_number(words[key])
    ]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_CLIP_NUMBER
