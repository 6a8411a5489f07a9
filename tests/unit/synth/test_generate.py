"""`synthesize`: its files depend on the seed and their name, and appear whole or not at all."""

import errno
import json
import re
from pathlib import Path

import pytest

from sgnray.errors import OutputError, UsageError
from sgnray.synth.generate import synthesize

SMALL = {"num_classes": 1, "num_subjects": 1, "num_setups": 1, "num_replications": 1}


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.skeleton")}


def test_a_file_depends_on_the_seed_and_its_name_only(tmp_path):
    synthesize(tmp_path / "few", **SMALL, seed=3)
    synthesize(tmp_path / "more", **{**SMALL, "num_classes": 3, "num_subjects": 2}, seed=3)
    synthesize(tmp_path / "other", **SMALL, seed=4)
    few, more = read_all(tmp_path / "few"), read_all(tmp_path / "more")
    assert len(few) == 3
    assert few == {name: more[name] for name in few}
    assert all(few[name] != text for name, text in read_all(tmp_path / "other").items())
    assert len(set(more.values())) == len(more)


def test_names_and_manifest(tmp_path):
    steps = []
    result = synthesize(
        tmp_path / "raw",
        num_classes=2,
        num_subjects=3,
        num_setups=2,
        num_replications=1,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    names = sorted(read_all(tmp_path / "raw"))
    takes = {re.sub(r"C\d{3}", "", name) for name in names}
    assert takes == {
        f"{place}R001A00{action}.skeleton"
        for place in ("S001P001", "S002P002", "S001P003")
        for action in (1, 2)
    }
    assert len(names) == 3 * len(takes) == result.num_files
    assert result.num_bytes == sum(map(len, read_all(tmp_path / "raw").values()))
    assert steps == [(done, 18) for done in range(1, 19)]
    manifest = json.loads((tmp_path / "raw" / "synth.json").read_text())
    assert manifest == {
        "format_version": 1,
        "dataset": "synth",
        "class_names": list(result.class_names),
        "seed": 0,
        "num_classes": 2,
        "num_subjects": 3,
        "num_setups": 2,
        "num_replications": 1,
    }


@pytest.mark.parametrize(("num_subjects", "num_setups"), [(1, 1), (2, 5), (5, 2), (4, 4)])
def test_every_subject_and_every_setup_occurs(tmp_path, num_subjects, num_setups):
    counts = {"num_subjects": num_subjects, "num_setups": num_setups}
    synthesize(tmp_path / "raw", **{**SMALL, **counts})
    places = {(name[1:4], name[9:12]) for name in read_all(tmp_path / "raw")}
    assert len({setup for setup, _ in places}) == num_setups
    assert len({subject for _, subject in places}) == num_subjects
    assert len(places) == max(num_subjects, num_setups)


def test_an_interruption_leaves_what_was_there(tmp_path):
    raw = tmp_path / "raw"
    synthesize(raw, **SMALL)
    before = read_all(raw)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(raw, **SMALL, seed=1, overwrite=True, on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "new", **SMALL, on_progress=interrupt)
    assert read_all(raw) == before
    assert list(tmp_path.iterdir()) == [raw]


def test_a_second_writer_of_the_same_folder_is_refused(tmp_path):
    seen = []

    def start_another(done, total):
        with pytest.raises(OutputError) as caught:
            synthesize(tmp_path / "raw", **SMALL, overwrite=True)
        seen.append(caught.value.what)

    synthesize(tmp_path / "raw", **SMALL, on_progress=start_another)
    assert seen == ["another sgn synth is writing this folder"] * 3
    assert len(read_all(tmp_path / "raw")) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "raw"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in ("ready", "previous"):
        (tmp_path / "raw.partial" / name).mkdir(parents=True)
        (tmp_path / "raw.partial" / name / "S001.skeleton").write_text("")
    synthesize(tmp_path / "raw", **SMALL)
    assert len(read_all(tmp_path / "raw")) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "raw"]


def test_the_files_of_someone_else_are_kept(tmp_path):
    (tmp_path / "raw.partial").mkdir()
    (tmp_path / "raw.partial" / "thesis.txt").write_text("irreplaceable")
    synthesize(tmp_path / "raw", **SMALL)
    assert len(read_all(tmp_path / "raw")) == 3
    assert [path.name for path in (tmp_path / "raw.partial").iterdir()] == ["thesis.txt"]


def test_overwrite_replaces_only_synthetic_recordings(tmp_path):
    raw, foreign = tmp_path / "raw", tmp_path / "foreign"
    raw.mkdir()
    synthesize(raw, **SMALL)  # an empty folder is taken
    with pytest.raises(UsageError, match="already contains synthetic recordings") as caught:
        synthesize(raw, **SMALL, seed=1)
    assert caught.value.now == "add --overwrite to replace them, or name another folder"
    before = read_all(raw)
    synthesize(raw, **{**SMALL, "num_classes": 2}, seed=1, overwrite=True)
    assert len(read_all(raw)) == 6
    assert before.items().isdisjoint(read_all(raw).items())
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("irreplaceable")
    for target in (foreign, foreign / "thesis.txt"):
        with pytest.raises(UsageError, match="does not contain synthetic recordings"):
            synthesize(target, **SMALL, overwrite=True)
    assert (foreign / "thesis.txt").read_text() == "irreplaceable"
    assert sorted(tmp_path.iterdir()) == [foreign, raw]


@pytest.mark.parametrize("name", ["labels.csv", "a1.skeleton", "S001C001P001R001A001.txt"])
def test_overwrite_keeps_files_that_are_not_ours(tmp_path, name):
    """The folder would be removed with all that is in it."""
    raw = tmp_path / "raw"
    synthesize(raw, **SMALL)
    (raw / name).write_text("irreplaceable")
    before = read_all(raw)
    with pytest.raises(UsageError, match=f"also contains other files: {name}") as caught:
        synthesize(raw, **SMALL, seed=1, overwrite=True)
    assert caught.value.where == str(raw)
    assert read_all(raw) == before


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        synthesize(tmp_path / "raw", **SMALL)
    assert caught.value.where == str(tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="Not a directory") as caught:
        synthesize(Path("file/raw"), **SMALL)
    assert caught.value.where == "file/raw"


@pytest.mark.parametrize(
    ("name", "count", "limit"),
    [("classes", 0, 24), ("classes", 25, 24), ("subjects", 0, 999), ("setups", 1000, 999)],
)
def test_counts_out_of_range_are_refused(tmp_path, name, count, limit):
    with pytest.raises(UsageError) as caught:
        synthesize(tmp_path / "raw", **{**SMALL, f"num_{name}": count})
    assert caught.value.what == f"the number of {name} must be from 1 to {limit}, got {count}"
    assert caught.value.where == f"--{name}"
    assert list(tmp_path.iterdir()) == []
