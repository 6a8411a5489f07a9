"""`sgn data`: what it shows, what it finds damaged, and what it exports."""

import json
import shutil
from pathlib import Path

import pytest

from sgnray.cli import data_tables, render
from sgnray.data.describe import (
    ClassContent,
    DatasetContent,
    LengthBin,
    Lengths,
    Numbers,
    SkippedContent,
)
from sgnray.data.info import DatasetInfo, read_info
from sgnray.data.skeleton import NTU25
from sgnray.prepare.readers.pyskl import plan_pyskl
from sgnray.storage.location import locate


def make_content(num_classes=3, num_reasons=2, splits=None):
    classes = tuple(
        ClassContent(label, f"action number {label}", 900 - label) for label in range(num_classes)
    )
    bins = (LengthBin(0, 49, 20), LengthBin(50, 99, 0), LengthBin(100, 2000, 10))
    return DatasetContent(
        folder=Path("data/ntu60"),
        info=DatasetInfo(
            format_version=2,
            dataset="ntu60",
            skeleton=NTU25,
            class_names=tuple(row.name for row in classes),
            num_clips=56578,
            num_poses=5400000,
            num_skipped=302,
            source={
                "num_files": 56880,
                "num_bytes": 5812345678,
                "fingerprint": f"sha256:{'ab' * 32}",
            },
            checksum=f"sha256:{'cd' * 32}",
        ),
        size_bytes=1_640_000_000,
        classes=classes,
        splits={"cs": (40091, 16487)} if splits is None else splits,
        subjects=Numbers(tuple(range(1, 41)), 0),
        cameras=Numbers((2,), 12),
        setups=Numbers((), 56578),
        num_two_bodies=10000,
        lengths=Lengths(32, 72.5, 81.25, 2000, bins),
        skipped=tuple(
            SkippedContent(f"reason {index}", 302 - index, f"file{index}.skeleton")
            for index in range(num_reasons)
        ),
    )


def lines(content, capsys, **options):
    render.result(*data_tables.content(content, **options))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_what_is_in_a_dataset(capsys):
    assert lines(make_content(), capsys) == [
        "ntu60: 56,578 clips, 5,400,000 poses, 3 classes",
        "",
        "folder      data/ntu60",
        "size        1.6 GB, format version 2",
        "skeleton    ntu25: 25 joints, x y z",
        "subjects    40, numbered 1 to 40",
        "cameras     1, numbered 2; unknown in 12 clips",
        "setups      unknown",
        "two bodies  10,000 clips, 17.7%",
        "source      56,880 files, 5.8 GB, fingerprint sha256:abababababababab",
        f"sha256      {'cd' * 32}",
        "",
        "case  training clips  test clips",
        "\u2500" * 32,
        "cs            40,091      16,487",
        "",
        "label  class            clips  label  class            clips",
        "\u2500" * 60,
        "    0  action number 0    900      2  action number 2    898",
        "    1  action number 1    899",
        "",
        "      frames  clips  min 32, median 72.5, mean 81.2, max 2,000",
        "\u2500" * 62,
        "     0 to 49     20  " + "\u2501" * 40,
        "    50 to 99      0",
        "100 to 2,000     10  " + "\u2501" * 20,
        "",
        "left out because  files  for example",
        "\u2500" * 39,
        "reason 0            302  file0.skeleton",
        "reason 1            301  file1.skeleton",
        "all files: data/ntu60/skipped.csv",
    ]


def test_many_classes_are_cut_to_the_extremes_unless_verbose(capsys):
    content = make_content(120)
    done = lines(content, capsys)
    assert "all 120 classes: sgn data -v" in done
    begin = done.index("fewest clips       label  clips")
    assert done[begin + 2] == "action number 119    119    781"
    assert done[begin + 8] == "most clips       label  clips"
    assert done[begin + 10] == "action number 0      0    900"
    whole = lines(content, capsys, is_whole=True)
    for row in content.classes:
        assert any(f"{row.label}  {row.name}  " in line for line in whole)
    assert len(whole) <= 90
    assert max(map(len, [*done, *whole])) <= 80


def test_many_reasons_are_cut_and_a_missing_split_is_stated(capsys):
    done = lines(make_content(num_reasons=14, splits={}), capsys)
    assert done[-2].startswith("reason 9 ")
    assert done[-1] == "4 more reasons, and all files: data/ntu60/skipped.csv"
    assert "no case: the dataset has no split into training and test clips" in done


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_499, "99.5 kB"),
        (99_500, "100 kB"),
        (999_600, "1.0 MB"),
        (1_640_000_000, "1.6 GB"),
        (5_000_000_000_000_000, "5,000 TB"),
    ],
)
def test_sizes(num_bytes, shown):
    assert data_tables.size(num_bytes) == shown


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny dataset where `sgn` finds it."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "data" / "synth"))


def test_the_one_dataset_is_shown(sgn, folder):
    done = sgn("data")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("synth: 27 clips, ")
    assert "folder      data/synth\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert sgn("data", "--data", "data/synth").out == done.out
    assert sgn("data", "-v").out == sgn("-v", "data").out == done.out


def test_color_follows_force_color_and_no_color(sgn, folder, monkeypatch):
    plain = sgn("data").out
    assert "\033" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\033[" in sgn("data").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[3" not in sgn("data").out


def test_it_can_be_shown_in_ascii(sgn_process, folder):
    done = sgn_process("data", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.code, done.err) == (0, "")
    assert "----" in done.out


def test_json_contains_everything(sgn, folder):
    content = json.loads(sgn("data", "--json").out)
    info = read_info(folder)
    assert (content["num_clips"], content["num_poses"]) == (27, info.num_poses)
    assert content["checksum"] == info.checksum
    assert content["skeleton"] == info.skeleton.to_dict()
    assert [row["num_clips"] for row in content["classes"]] == [9, 9, 9]
    assert [row["name"] for row in content["classes"]] == list(info.class_names)
    assert set(content["splits"]) == {"cs", "cv", "cset"}
    assert sum(content["splits"]["cv"].values()) == 27
    assert content["cameras"] == {"known": [1, 2, 3], "num_unknown": 0}
    assert sum(row["num_clips"] for row in content["lengths"]["bins"]) == 27
    assert content["skipped"] == []


def test_verify_reports_a_valid_dataset(sgn, folder):
    done = sgn("data", "verify")
    info = read_info(folder)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"valid: 27 clips, {info.num_poses:,} poses, checksum {info.checksum}\n"
    assert json.loads(sgn("data", "verify", "--json").out) == {
        "format_version": 1,
        "folder": "data/synth",
        "num_clips": 27,
        "num_poses": info.num_poses,
        "checksum": info.checksum,
    }


def test_verify_lists_all_damage_in_one_block(sgn, folder):
    (folder / "skipped.csv").unlink()
    path = folder / "clips.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    done = sgn("data", "verify", "--data", "data/synth")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0] == "error: the dataset has 3 problems"
    assert lines[1].startswith("  clips.arrow  its checksum is sha256:")
    assert lines[2].startswith("  clips.arrow  cannot be read: ")
    assert lines[3:] == [
        "  skipped.csv  the list of skipped files cannot be read: it is missing",
        "  where  data/synth",
        "  now    prepare it again: sgn prepare --raw PATH --overwrite",
    ]


@pytest.mark.parametrize(
    ("arguments", "block"),
    [
        (
            ["data", "foo"],
            "error: unknown command 'foo'; the commands are verify, export\n"
            "  where  sgn data\n"
            "  now    see 'sgn data --help'\n",
        ),
        (
            ["data", "exprot"],
            "error: unknown command 'exprot'; did you mean export?\n"
            "  where  sgn data\n"
            "  now    see 'sgn data --help'\n",
        ),
        (
            ["data", "--data", "x", "--json", "verify"],
            "error: --data x must come after verify\n"
            "  where  sgn data --data x verify\n"
            "  now    write it last: sgn data verify --data x --json\n",
        ),
        (
            ["data", "export"],
            "error: the option --to is missing\n"
            "  where  sgn data export\n"
            "  now    see 'sgn data export --help'\n",
        ),
        (
            ["data"],
            "error: prepared dataset not found\n"
            "  where  data\n"
            "  now    if it was moved, name its folder with --data; else prepare one: "
            "sgn prepare --raw PATH, or try everything with sgn demo\n",
        ),
    ],
)
def test_usage_errors(sgn, arguments, block):
    done = sgn(*arguments)
    assert (done.code, done.out, done.err) == (2, "", block)


def test_an_export_is_named_after_its_case(sgn, folder, tmp_path):
    done = sgn("data", "export", "--to", "npz", "--case", "xview")
    assert done.code == 0
    assert done.out.startswith("written: synth-cv.npz, 27 clips, ")
    assert Path("synth-cv.npz").is_file()
    again = sgn("data", "export", "--to", "npz", "--case", "cv")
    assert (again.code, again.out) == (2, "")
    done = sgn("data", "export", "--to", "npz", "--case", "cv", "--overwrite", "--json")
    content = json.loads(done.out)
    assert (content["path"], content["num_clips"]) == ("synth-cv.npz", 27)
    assert content["num_bytes"] == Path("synth-cv.npz").stat().st_size


def test_what_an_export_loses_is_a_warning(sgn, folder):
    done = sgn("data", "export", "--to", "h5", "--case", "cs", "--out", "mine.h5")
    assert done.code == 0
    losses = json.loads(
        sgn("data", "export", "--to", "h5", "--case", "cs", "--out", "two.h5", "--json").out
    )["losses"]
    assert losses
    assert done.err == "".join(f"warning: {loss}\n" for loss in losses)


def test_all_cases_or_the_named_one_go_into_a_pickle(sgn, folder):
    assert sgn("data", "export", "--to", "pyskl").out.startswith("written: synth.pkl, 27 clips, ")
    done = sgn("data", "export", "--to", "pyskl", "--case", "xview")
    assert done.out.startswith("written: synth-cv.pkl, 27 clips, ")
    cases = [set(plan_pyskl(locate(Path(file))).splits) for file in ("synth.pkl", "synth-cv.pkl")]
    assert cases == [{"cs", "cv", "cset"}, {"cv"}]


def test_the_case_of_an_export_must_be_named_among_several(sgn, folder):
    done = sgn("data", "export", "--to", "npz")
    assert done.code == 2
    assert done.err.startswith("error: synth has several cases: cs, cv, cset\n")
