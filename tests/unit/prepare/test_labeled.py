"""Custom recordings become a dataset: their labels are in folders, names or a table."""

import html
import itertools
import json
import os
import pickle
import shutil
import unicodedata
import zipfile

import pytest

from sgnray.data.store import open_dataset
from sgnray.errors import InputError, UsageError
from sgnray.prepare.clip import Clip
from sgnray.prepare.dataset import prepare_dataset
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.storage.location import locate
from sgnray.view.clip import view_clip

from ... import pose_files as files


@pytest.fixture
def write(tmp_path):
    """Write the same tiny recording under each name."""

    def write_all(*names, kind="MediaPipe"):
        for name in names:
            path = tmp_path / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.make_file(kind))
        return tmp_path / "mine"

    return write_all


def make_different(path, by=1):
    path.write_bytes(path.read_bytes() + b"\n" * by)


def plan(raw, name_pattern=None):
    return detect([locate(raw)], name_pattern)


def write_openpose(folder, name):
    frames_NVC = files.project(files.move(files.COCO17, 2))[:, None]
    frames_NVC = frames_NVC[:, :, [0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]]
    files.write_openpose(folder, name, frames_NVC)


def facts_of(planned):
    """Read all clips as a worker does: their names, labels by name, and the columns."""
    jobs = [pickle.loads(pickle.dumps(job)) for job in planned.jobs]
    clips = [clip for job in jobs for clip in job.read()]
    assert all(isinstance(clip, Clip) for clip in clips)
    return {
        clip.facts.name: (
            planned.class_names[clip.facts.label],
            clip.facts.subject,
            clip.facts.camera,
        )
        for clip in clips
    }


def test_the_folder_is_the_class(write):
    raw = write("wave/a.csv", "wave/b.csv", "more/clap/a.csv", "clap/b.csv", "alone.csv")
    planned = plan(raw)
    assert facts_of(planned) == {
        "clap/a": ("clap", None, None),
        "clap/b": ("clap", None, None),
        "wave/a": ("wave", None, None),
        "wave/b": ("wave", None, None),
    }
    assert (planned.dataset, planned.skeleton.name) == ("mine", "mediapipe33")
    assert planned.class_names == ("clap", "wave")
    assert [(item.name, item.reason) for item in planned.skipped] == [
        ("alone.csv", "it is not in a class folder")
    ]
    # One clip in five of each class is tested, and at least one of a class that has two.
    assert planned.splits == {
        "random": {"train": ["clap/a", "wave/a"], "test": ["clap/b", "wave/b"]}
    }


def test_folders_of_alphapose_are_recordings_of_a_class(write):
    """All of its files have the same name; other names do not change the class."""
    raw = write(
        *(f"{clip}/alphapose-results.json" for clip in ("a/wave/clip0", "a/clap/clip0", "hop")),
        *("a/jump/clip2/sep-json/1.json", "a/jump/clip2/sep-json/2.json", "monday/wave/clip1.json"),
        kind="COCO",
    )
    for number, path in enumerate(sorted(raw.rglob("*.json"))):
        people = json.loads(files.make_file("COCO"))
        if path.parent.name == "sep-json":
            people = [{"keypoints": people[0]["keypoints"]}]
        path.write_text(json.dumps(people) + number * "\n")
    assert {name: label for name, (label, *_) in facts_of(plan(raw)).items()} == {
        "wave/clip0/alphapose-results": "wave",
        "clap/clip0/alphapose-results": "clap",
        "hop/alphapose-results": "hop",
        "jump/clip2/sep-json": "jump",
        "wave/clip1": "wave",
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("{}/clip{}/json", "wave/clip0/json"),
        ("monday/{}/clip{}/keypoints", "wave/clip0/keypoints"),
        ("{}/predictions/clip{}.json", "wave/predictions/clip0"),
        ("{}/JSON/clip{}", "wave/JSON/clip0"),
        ("openpose/{}/clip{}", "wave/clip0"),
        ("day1/{}/clip{}/openpose/json", "wave/clip0/openpose/json"),
    ],
)
def test_folders_that_programs_write_are_not_classes(tmp_path, path, name):
    for label, number in itertools.product(("still", "wave"), range(2)):
        place = tmp_path / "raw" / path.format(label, number)
        if place.suffix:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(files.make_file("MMPose", seed=number))
        else:
            write_openpose(place, f"clip{number}")
    labels = {name: label for name, (label, *_) in facts_of(plan(tmp_path / "raw")).items()}
    assert (len(labels), labels[name]) == (4, "wave")
    assert set(labels.values()) == {"still", "wave"}


def test_a_file_may_have_the_name_of_such_a_folder(write):
    raw = write("monday/wave/keypoints.csv", "monday/still/json.csv", "monday/still/a.csv")
    assert plan(raw).class_names == ("still", "wave")


def test_a_class_may_have_the_name_of_such_a_folder(write):
    raw = write("input/clip0.csv", "output/clip0.csv", "output/clip1.csv")
    assert plan(raw).class_names == ("input", "output")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("kinect.2023", "kinect-2023"),
        ("v1.2", "v1-2"),
        ("Mine.ZIP", "mine"),
        ("Ünï", "uni"),
        ("日本語", "dataset-7771"),
        ("中文", "dataset-7272"),
        ("한국어", "dataset-4cbd"),
    ],
)
def test_the_dataset_is_named_after_the_folder(write, tmp_path, folder, name):
    raw = write("wave/a.csv", "clap/b.csv")
    for form in ("NFC", "NFD"):
        place = tmp_path / form / unicodedata.normalize(form, folder)
        shutil.copytree(raw, place)
        assert plan(place).dataset == name


def test_the_dataset_is_named_after_a_file_without_its_suffix(write):
    raw = write("clap.csv", "wave.csv")
    places = [locate(raw / "clap.csv"), locate(raw / "wave.csv")]
    assert detect(places, "{label}").dataset == "clap"


def test_links_are_judged_by_their_own_names(write, tmp_path):
    """Caches store files and folders under hashes."""
    write("wave/a.csv", "clap/b.csv").rename(tmp_path / "ab12")
    (tmp_path / "ab12/wave/a.csv").rename(tmp_path / "cd34")
    (tmp_path / "ab12/wave/a.csv").symlink_to(tmp_path / "cd34")
    (tmp_path / "mine").symlink_to("ab12")
    planned = plan(tmp_path / "mine")
    assert (planned.dataset, list(facts_of(planned))) == ("mine", ["clap/b", "wave/a"])
    (tmp_path / "one.csv").symlink_to("cd34")
    assert [file.path for file in find_recordings(tmp_path / "one.csv").files] == ["one.csv"]


def test_names_that_are_not_utf8_are_escaped(write, tmp_path):
    raw = write("wave/a\udcfc.csv", "k\udcfcche/b.csv", "\udcfc.csv")
    result = prepare_dataset(raw, out=tmp_path / "out")
    assert result.info.class_names == ("k\\udcfcche", "wave")
    names = ["k\\udcfcche/b", "wave/a\\udcfc"]
    assert list(open_dataset(result.folder).clips.names) == names
    assert [item.name for item in result.skipped] == ["\\udcfc.csv"]
    page = view_clip(raw, "a\\udcfc.csv", to="html", out=tmp_path / "clip.html")
    assert "a\\udcfc.csv" in html.unescape(page.read_text()).replace("\\\\", "\\")


def test_names_in_another_unicode_form_are_one_class(write, tmp_path):
    """File systems and archives of macOS may decompose names."""
    nfc, nfd = (unicodedata.normalize(form, "박수") for form in ("NFC", "NFD"))
    raw = write(f"{nfc}/a.csv", f"{nfd}/b.csv", "clap/c.csv")
    planned = plan(raw)
    assert planned.class_names == ("clap", nfc)
    assert list(facts_of(planned)) == ["clap/c", f"{nfc}/a", f"{nfc}/b"]
    for clip in (f"{nfd}/a", f"{nfc}/b"):
        view_clip(raw, clip, to="html", out=tmp_path / f"{clip[-1]}.html")


def test_recordings_with_the_same_name_in_one_class_are_named_by_path(write):
    """Only these are named by their whole paths."""
    planned = plan(write("x/wave/a.csv", "y/wave/a.csv", "x/clap/a.csv"))
    assert facts_of(planned) == {
        "clap/a": ("clap", None, None),
        "x/wave/a": ("wave", None, None),
        "y/wave/a": ("wave", None, None),
    }


def test_recordings_with_the_same_path_in_several_places_are_named_by_the_place(write, tmp_path):
    raw = write("d/monday/wave/a.csv", "d/monday/clap/b.csv", "d/tuesday/wave/a.csv")
    make_different(raw / "d/tuesday/wave/a.csv")
    places = [locate(raw / "d" / day) for day in ("monday", "tuesday")]
    names = ["clap/b", "monday/wave/a", "tuesday/wave/a"]
    assert list(facts_of(detect(places))) == names
    assert list(facts_of(detect(places, "{label}"))) == [
        "b", "monday/wave/a", "tuesday/wave/a"
    ]  # fmt: skip
    make_different(write("e/monday/wave/a.csv") / "e/monday/wave/a.csv", by=2)
    places.append(locate(raw / "e/monday"))
    planned = detect(places)
    assert list(facts_of(planned)) == [
        "clap/b", "d/monday/wave/a", "e/monday/wave/a", "tuesday/wave/a"
    ]  # fmt: skip
    assert planned.skipped == ()


def test_zips_with_the_same_members_are_named_by_the_zip(write, tmp_path):
    (tmp_path / "zips").mkdir()
    raw = write("wave/a.csv", "clap/b.csv")
    for day in ("monday", "tuesday"):
        shutil.make_archive(tmp_path / f"zips/{day}", "zip", raw)
        make_different(raw / "wave/a.csv")
        make_different(raw / "clap/b.csv")
    assert list(facts_of(plan(tmp_path / "zips"))) == [
        f"{day}/{name}" for day in ("monday", "tuesday") for name in ("clap/b", "wave/a")
    ]


def test_a_copy_of_a_recording_is_not_used(write, tmp_path):
    """A clip could be trained on, and its copy tested."""
    raw = write("wave/a.csv", "clap/b.csv")
    for name in ("data", "data (1)"):
        shutil.make_archive(tmp_path / f"zips/{name}", "zip", raw)
    for places in ([tmp_path / "zips"], [raw, tmp_path / "zips/data.zip"]):
        planned = detect([locate(place) for place in places])
        assert sorted(name.rpartition("/")[2] for name in facts_of(planned)) == ["a", "b"]
        assert [(item.name, item.reason) for item in planned.skipped] == [
            ("wave/a.csv", "the same recording is in another place"),
            ("clap/b.csv", "the same recording is in another place"),
        ]


def test_a_copy_of_a_recording_of_openpose_is_not_used(tmp_path):
    """Its frames are files of a folder, which together are one recording."""
    for place, label in itertools.product(("a", "b"), ("wave", "clap")):
        write_openpose(tmp_path / place / label / "rec1", "rec1")
    for frame in (tmp_path / "b/clap/rec1").iterdir():  # of the same size
        frame.write_bytes(frame.read_bytes().replace(b'"version": 1.3', b'"version": 1.4'))
    planned = detect([locate(tmp_path / place) for place in ("a", "b")])
    assert list(facts_of(planned)) == ["a/clap/rec1", "a/wave/rec1", "b/clap/rec1"]
    assert [(item.name, item.reason) for item in planned.skipped] == [
        ("wave/rec1", "the same recording is in another place")
    ]


def test_copies_that_are_too_large_to_read_do_not_stop_the_others(write):
    raw = write("d/monday/wave/a.csv", "d/tuesday/wave/a.csv", "d/monday/clap/b.csv")
    for day in ("monday", "tuesday"):
        os.truncate(raw / f"d/{day}/wave/a.csv", 64 * 2**20 + 1)
    planned = detect([locate(raw / "d" / day) for day in ("monday", "tuesday")])
    assert (sum(job.num_clips for job in planned.jobs), planned.skipped) == (3, ())


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    """PowerShell 5 writes them, also for the frames of OpenPose."""
    for kind in ("MediaPipe", "OpenPose"):
        path = tmp_path / f"{kind}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for label in ("wave", "clap"):
                archive.writestr(f"mine\\{label}\\", "")
                if kind == "MediaPipe":
                    archive.writestr(f"mine\\{label}\\c0.csv", files.make_file("MediaPipe"))
                    continue
                write_openpose(tmp_path / label, "c0")
                for frame in (tmp_path / label).rglob("*.json"):
                    archive.writestr(f"mine\\{label}\\c0\\{frame.name}", frame.read_bytes())
        planned = plan(path)
        assert list(facts_of(planned)) == ["clap/c0", "wave/c0"]
        assert planned.skipped == ()


def test_a_pattern_names_recordings_with_the_same_name_by_path(write):
    raw = write("s1/a1_s1.csv", "s2/a1_s1.csv", "s2/a2_s1.csv")
    assert list(facts_of(plan(raw, "a{label}_s{subject}"))) == ["a2_s1", "s1/a1_s1", "s2/a1_s1"]


def test_a_short_path_that_another_one_ends_with_stays_a_name(write):
    names = list(facts_of(plan(write("wave/a.csv", "x/wave/a.csv", "clap/b.csv"))))
    assert names == ["clap/b", "wave/a", "x/wave/a"]


def test_of_recordings_that_differ_only_in_their_suffix_the_first_counts(write):
    write("wave/a.pickle", "wave/a.pkl", "clap/b.pkl", kind="PYSKL")
    planned = plan(write())
    assert list(facts_of(planned)) == ["clap/b", "wave/a"]
    assert [(item.name, item.reason) for item in planned.skipped] == [
        ("wave/a.pkl", "another recording has this name")
    ]


def test_tables_that_contradict_each_other_are_refused(write):
    raw = write("mon/a.csv", "tue/a.csv")
    for day, label in (("mon", "wave"), ("tue", "clap")):
        (raw / day / "labels.csv").write_text(f"name,label\na,{label}\n")
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert "is something else in another labels.csv" in caught.value.problems[0].what
    for day, label in (("mon", "wave"), ("tue", "clap")):
        (raw / day / "labels.csv").write_text(f"name,label\n{day}/a,{label}\n")
    assert facts_of(plan(raw)) == {"mon/a": ("wave", None, None), "tue/a": ("clap", None, None)}


def test_a_pattern_reads_the_names(write):
    names = [f"a{label}_s{subject}_v{camera}_x.csv" for label, subject, camera in
             ((10, 1, 1), (9, 2, 2), (10, 3, 1), (9, 4, 3), (9, 5, 3))]  # fmt: skip
    planned = plan(write(*names, "other.csv"), "a{label}_s{subject}_v{camera}_*")
    assert facts_of(planned)["a9_s4_v3_x"] == ("9", 4, 3)
    assert planned.class_names == ("9", "10")  # by their value
    assert planned.skipped[0].reason.startswith("its name does not fit the pattern")
    assert planned.splits["cs"] == {
        "train": ["a10_s1_v1_x", "a9_s2_v2_x", "a9_s4_v3_x", "a9_s5_v3_x"],
        "test": ["a10_s3_v1_x"],
    }
    assert planned.splits["cv"]["test"] == ["a9_s4_v3_x", "a9_s5_v3_x"]


def test_a_number_in_a_name_may_be_too_large(write):
    planned = plan(
        write("a1_s40000.csv", "a2_s0000000000007.csv", "a3_s2.csv"), "a{label}_s{subject}"
    )
    assert {name: facts[1] for name, facts in facts_of(planned).items()} == {
        "a2_s0000000000007": 7,
        "a3_s2": 2,
    }
    reason = "in its name, subject is '40000', not a number from 0 to 32,767"
    assert [item.reason for item in planned.skipped] == [reason]


def test_a_pattern_may_have_folders(write):
    raw = write("s1/wave.csv", "s2/clap.csv")
    assert facts_of(plan(raw, "s{subject}/{label}"))["s2/clap"] == ("clap", 2, None)


def test_a_pattern_without_a_label_takes_the_folder(write):
    planned = plan(write("wave/p1_3.csv", "clap/p2_3.csv"), "p{subject}_*")
    assert facts_of(planned) == {"wave/p1_3": ("wave", 1, None), "clap/p2_3": ("clap", 2, None)}


def test_labels_csv_describes_files_and_their_folders(write):
    raw = write("one/a.csv", "two/a.csv", "b.csv", "forgotten.csv")
    (raw / "labels.csv").write_text(
        "\ufeffname,label,subject,camera,split\n"
        "one/a,stand up,1,,train\ntwo/a.csv,sit down,2,,test\nb,stand up,7,,train\n"
    )
    planned = plan(raw)
    assert facts_of(planned) == {
        "one/a": ("stand up", 1, None),
        "two/a": ("sit down", 2, None),
        "b": ("stand up", 7, None),
    }
    assert planned.splits["given"] == {"train": ["b", "one/a"], "test": ["two/a"]}
    assert [item.reason for item in planned.skipped] == ["it is not in labels.csv"]


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_labels_csv_may_be_in_another_unicode_form(write, caplog, form, other):
    names = [unicodedata.normalize(form, name) for name in ("bière", "박수")]
    raw = write(*(f"{name}.csv" for name in names))
    rows = "".join(f"{unicodedata.normalize(other, name)},{at}\n" for at, name in enumerate(names))
    (raw / "labels.csv").write_text(f"name,label\n{rows}")
    assert facts_of(plan(raw)) == {"bière": ("0", None, None), "박수": ("1", None, None)}
    assert caplog.text == ""


def test_rows_of_labels_csv_without_a_recording_are_named(write, caplog):
    raw = write("monday/a.csv", "monday/b.csv", "broken.csv")
    (raw / "broken.csv").write_text("")
    text = "name,label\nmonday/a,wave\nmonday/b,clap\nbroken,wave\n"
    (raw / "labels.csv").write_text(text)
    assert plan(raw).num_clips == 2
    assert caplog.text == ""
    (raw / "labels.csv").write_text(f"{text}tuesday/a,wave\nc,wave\n")
    assert plan(raw).num_clips == 2
    assert caplog.messages == ["no recording found for 2 rows of labels.csv, such as 'c'"]


@pytest.mark.parametrize("name", ["clap-0.mp4", "x/clap-0.MP4", "clap-0.avi", "clap-0"])
def test_labels_csv_may_list_the_videos(write, name):
    raw = write("x/clap-0.csv", "x/wave.mp4.csv", "x/bow.mp4.csv", "x/bow.avi.csv")
    text = f"name,label\n{name},clap\nwave,wave\nbow.mp4,one\nbow.avi,two\n"
    (raw / "labels.csv").write_text(text)
    assert {name: facts[0] for name, facts in facts_of(plan(raw)).items()} == {
        name.removesuffix(".mp4").removesuffix(".MP4").removesuffix(".avi"): "clap",
        "wave": "wave", "bow.mp4": "one", "bow.avi": "two",
    }  # fmt: skip


def test_videos_of_one_name_in_labels_csv_are_not_mixed_up(write, caplog):
    raw = write("a.csv", "b.csv", "c.csv")
    (raw / "labels.csv").write_text("name,label\na.mp4,one\na.avi,two\nb,x\nc,y\n")
    planned = plan(raw)
    assert list(facts_of(planned)) == ["b", "c"]
    assert [item.reason for item in planned.skipped] == ["it is not in labels.csv"]
    assert caplog.messages == ["no recording found for 2 rows of labels.csv, such as 'a.avi'"]


@pytest.mark.parametrize("name", ["clip0", "clip0.mp4"])
def test_a_row_of_labels_csv_for_several_recordings_is_refused(write, name):
    """Else the first one would get the label of the other."""
    raw = write("wave/clip0.csv", "still/clip0.csv", "jump/clip1.csv")
    make_different(raw / "wave/clip0.csv")
    (raw / "labels.csv").write_text(f"name,label\n{name},wave\nclip1,jump\n")
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        (
            name,
            "fits still/clip0.csv and wave/clip0.csv: "
            "write a row for each, with its folder, such as still/clip0",
        )
    ]
    write("clip0.csv")
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert (
        " and more: write a row for each, with its folder, such as still"
        in caught.value.problems[0].what
    )
    (raw / "clip0.csv").unlink()
    for rows in ("wave/clip0,wave", f"{name},still\nwave/clip0,wave"):
        (raw / "labels.csv").write_text(f"name,label\n{rows}\nclip1,jump\n")
        assert facts_of(plan(raw))["wave/clip0"][0] == "wave"


def test_subjects_with_names_are_numbered_in_their_order(write):
    raw = write("one/a.csv", "one/b.csv", "two/a.csv", "two/b.csv")
    for folder, first in (("one", "P10"), ("two", "anna")):
        (raw / folder / "labels.csv").write_text(
            f"name,label,subject\n{folder}/a,x,{first}\n{folder}/b,y,P2\n"
        )
    planned = plan(raw)
    assert {name: facts[1] for name, facts in facts_of(planned).items()} == {
        "one/a": 2, "one/b": 1, "two/a": 3, "two/b": 1,
    }  # fmt: skip
    assert planned.splits["cs"]["test"] == ["two/a"]
    (raw / "two/labels.csv").write_text("name,label,subject\ntwo/a,x,7\n")
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("subject", "is a name such as 'P2', and a number such as '7'")
    ]


@pytest.mark.parametrize(
    ("table", "pattern", "now"),
    [
        ("name,label\nc,x\nd,y\n", None, "list the recordings in labels.csv, such as a with its"),
        ("name,label\na,x\nb,x\n", None, "give them different labels in labels.csv"),
        (None, "v{label}", "give a --name-pattern that fits their names, such as a"),
        (None, None, "sort them into one folder per class, put a labels.csv"),
    ],
)
def test_advice_is_about_the_source_of_the_labels(write, table, pattern, now):
    raw = write("a.csv", "b.csv")
    if table:
        (raw / "labels.csv").write_text(table)
    with pytest.raises(InputError) as caught:
        plan(raw, pattern)
    assert caught.value.now.startswith(now)


def test_labels_csv_describes_recordings_of_openpose(tmp_path):
    for name in ("wave", "clap"):
        write_openpose(tmp_path / "raw", name)
    (tmp_path / "raw/labels.csv").write_text("name,label\nwave,w\nclap,c\n")
    planned = plan(tmp_path / "raw")
    assert facts_of(planned) == {"wave": ("w", None, None), "clap": ("c", None, None)}
    assert planned.skeleton.name == "openpose18"


def test_other_labels_make_another_dataset(write):
    raw = write("a.csv", "b.csv")
    prints = set()
    for label in ("x", "y"):
        (raw / "labels.csv").write_text(f"name,label\na,{label}\nb,z\n")
        prints.add(plan(raw).source.fingerprint)
    assert len(prints) == 2


def test_a_dataset_with_another_split_is_not_reused(write, tmp_path):
    raw = write("a.csv", "b.csv")

    def prepare(table):
        (raw / "labels.csv").write_text(table)
        return prepare_dataset(raw, out=tmp_path / "out").reused

    given = "name,label,split\na,x,train\nb,z,test\n"
    assert [prepare(given), prepare(given)] == [False, True]
    for changed in ("name,label,split\na,x,test\nb,z,train\n", "name,label\na,x\nb,z\n"):
        with pytest.raises(
            UsageError, match="the output exists already: a dataset with other splits"
        ):
            prepare(changed)


@pytest.mark.parametrize(
    "text",
    [
        "name, label, subject\na, x, 1\nb, y, 2\n",
        "name;label;subject\r\na;x;1\r\nb;y;2\r\n",
        "\ufeffname\tlabel\tsubject\na\tx\t1\nb\ty\t2\n",
        "name,label,subject,,\na,x,1,,\nb,y,2,,\n,,,,\n",
        "name,,label,subject\n\na,,x,1, ,\n , \nb,,y,2\n",
        "\n,,\nname,label,subject\na,x,1\nb,y,2\n",
        "sep=,\nname,label,subject\na,x,1\nb,y,2\n",
        "\ufeffsep=;\r\nName;LABEL;Subject\r\na;x;1\r\nb;y;2\r\n",
    ],
)
def test_a_labels_csv_may_come_from_a_spreadsheet(write, text):
    raw = write("a.csv", "b.csv")
    (raw / "labels.csv").write_bytes(text.encode())
    assert facts_of(plan(raw)) == {"a": ("x", 1, None), "b": ("y", 2, None)}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["column name: is missing", "column label: is missing"]),
        ("name,label,age\na,x,3\n", ["column 'age': unknown; there are name, label, subject"]),
        ("name,label\na,\n,x\n", ["row 2: it has no label", "row 3: it has no name"]),
        ("name,label\na,x\na.csv,y\n", ["row 3: a is listed twice"]),
        ("name,label,label\na,x,y\n", ["column label: is there twice"]),
        ("name,label\na,x,y\n", ["row 2: it has more cells than the header"]),
        ("name,,label\na,y,x\n", ["row 2: it has more cells than the header"]),
        ("name,label\n\n,,\na,\n", ["row 4: it has no label"]),
        ("name,label,subject\na,x,-1\nb,y,40000\nc,z,one\n",
         ["row 2: subject is '-1'", "row 3: subject is '40000'", "row 4: subject is 'one'"]),
        ("name,label,split\na,x,val\n", ["row 2: split is 'val', neither train nor test"]),
        ('name,label\n"a,x\n', ["the file: "]),
        (b"name,label\n\xff,x\n", ["the file: it is not UTF-8 text: save it as 'CSV UTF-8'"]),
    ],
)  # fmt: skip
def test_a_wrong_labels_csv_is_refused_line_by_line(write, text, problems):
    raw = write("a.csv", "b.csv")
    (raw / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert caught.value.where == str(raw / "labels.csv")
    found = [f"{problem.where}: {problem.what}" for problem in caught.value.problems]
    assert len(found) == len(problems)
    assert all(one.startswith(other) for one, other in zip(found, problems, strict=True))


@pytest.mark.parametrize("pattern", ["", "clip", "{age}", "{label}_{label}", "a{}"])
def test_a_wrong_pattern_is_refused(write, pattern):
    with pytest.raises(UsageError, match="the name pattern cannot be used"):
        plan(write("a.csv", "b.csv"), pattern)


def test_a_pattern_and_a_table_exclude_each_other(write):
    raw = write("a1.csv", "a2.csv")
    (raw / "labels.csv").write_text("name,label\na1,x\n")
    with pytest.raises(UsageError, match=r"labels\.csv and --name-pattern cannot be combined"):
        plan(raw, "a{label}")


def test_a_pattern_is_for_recordings(tiny_folder):
    with pytest.raises(UsageError, match="a name pattern is only for recordings"):
        plan(tiny_folder / "clips.arrow", "a{label}")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a.csv", "b.csv"], "no recording has a known label"),
        (["wave/a.csv", "wave/b.csv"], "all recordings have the label 'wave'"),
    ],
)
def test_recordings_without_two_labels_are_refused(write, names, what):
    with pytest.raises(InputError) as caught:
        plan(write(*names))
    assert caught.value.what.startswith(what)
    assert "labels.csv" in caught.value.now


def test_mixed_formats_are_refused_with_an_example_of_each(write):
    write("wave/a.csv", "wave/b.csv")
    raw = write("clap/c.json", kind="YOLO")
    with pytest.raises(InputError, match="different formats") as caught:
        plan(raw)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("2 like wave/a.csv", "MediaPipe, mediapipe33"),
        ("1 like clap/c.json", "COCO key points, coco17"),
    ]
    assert caught.value.where == f"{raw}/wave/a.csv, and 2 others"


def test_several_places_make_one_dataset(write):
    raw = write("one/wave/a.csv", "two/clap/a.csv")
    planned = detect([locate(raw / "one"), locate(raw / "two")])
    assert (planned.dataset, list(facts_of(planned))) == ("one", ["clap/a", "wave/a"])
