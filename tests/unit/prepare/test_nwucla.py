import json
import re
from dataclasses import replace

import numpy as np
import pytest

from sgnray.data.datasets import DATASETS, read_class_names
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError
from sgnray.prepare.clip import ClipFacts, refusal
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.format_table import FORMATS, PUBLISHED, PublishedRecordings
from sgnray.prepare.readers.nwucla import ACTIONS, FORMAT, parse_nwucla_name, read_nwucla
from sgnray.storage.location import locate


def test_reads_frames_joints_coordinates():
    joints = np.random.default_rng(0).normal(size=(4, 20, 3)).round(6)
    recording = read_nwucla(json.dumps({"skeletons": joints.tolist()}).encode())
    assert recording.num_frames == 4
    assert np.array_equal(recording.bodies[0].joints_TVC, joints.astype(np.float32))


NO_LIST = "not a JSON object with a list `skeletons`"
NO_NUMBER = "`skeletons` contains something that is not a number"
NOT_FINITE = "a coordinate is not finite, or too large for float32"


def with_first(number):
    return json.dumps({"skeletons": [[[number, 0, 0]] * 20]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", NO_LIST),
        ('{"frames": []}', NO_LIST),
        ('{"skeletons": [[[1, 2, 3]], [[1, 2]]]}', "`skeletons` is not a regular list"),
        ("[" * 100_000, "malformed JSON: nested too deeply"),
        ('{"skeletons": []}', "`skeletons` has shape (0,), not (frames, 20, 3)"),
        ('{"skeletons": [[[0, 0, 0]]]}', "`skeletons` has shape (1, 1, 3), not (frames, 20, 3)"),
        (with_first("0"), NO_NUMBER),
        (with_first(None), NOT_FINITE),
        (with_first(float("nan")), NOT_FINITE),
        (with_first(1e39), NOT_FINITE),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(ClipError) as caught:
        read_nwucla(text.encode())
    assert caught.value.what == reason


def test_labels_and_counts_are_the_published_ones():
    """The order in which the official list numbers its actions, without the two never released."""
    assert ACTIONS == (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
    names = read_class_names("nwucla")
    assert {
        action: names[parse_nwucla_name(f"a{action:02}_s01_e00_v01.json").label]
        for action in ACTIONS
    } == {
        1: "pick up with one hand",
        2: "pick up with two hands",
        3: "drop trash",
        4: "walk around",
        5: "sit down",
        6: "stand up",
        8: "donning",
        9: "doffing",
        11: "throw",
        12: "carry",
    }
    assert len(names) == DATASETS["nwucla"].num_classes == 10
    (case,) = DATASETS["nwucla"].cases.values()
    assert (case.num_train, case.num_test) == (1020, 464)


def test_names():
    name = parse_nwucla_name("a12_s10_e05_v03.json")
    assert (name.label, name.subject, name.replication, name.camera) == (9, 10, 5, 3)
    assert name.setup is None
    with pytest.raises(ClipError):
        parse_nwucla_name("a1_s10_e05_v03.json")


def test_origin_is_the_spine_of_the_first_frame(make_nwucla):
    (job,) = detect([locate(make_nwucla(8))]).jobs
    clip = list(job.read())[5]
    poses_PVC = clip.poses.values_PD.reshape(-1, 20, 3)
    assert np.all(poses_PVC[0, 1] == 0)
    assert np.all(poses_PVC[0, 0] != 0)


def test_an_action_that_was_never_released_is_refused(make_nwucla):
    raw = make_nwucla(8)
    (raw / "all_sqe" / "a01_s01_e00_v01.json").rename(raw / "a07_s01_e00_v01.json")
    expected = Skipped("a07_s01_e00_v01.json", "action 7 is not one of NW-UCLA's")
    assert detect([locate(raw)]).skipped == (expected,)


def parse_other_name(file_name):
    match = re.fullmatch(r"other(\d\d)\.json", file_name)
    if match is None:
        raise refusal("not a name of the other dataset")
    return ClipFacts(file_name[:-5], int(match[1]) % 2, None, None, int(match[1]), None)


def test_another_dataset_with_files_of_this_format_is_told_by_their_names(make_nwucla, monkeypatch):
    other = PublishedRecordings(FORMATS[FORMAT], "otherNN.json", parse_other_name, lambda _: "x")
    monkeypatch.setitem(DATASETS, "x", replace(DATASETS["nwucla"], class_names=("a", "b")))
    monkeypatch.setitem(PUBLISHED, "the other dataset", other)
    raw = make_nwucla(8)
    assert detect([locate(raw)]).dataset == "nwucla"
    for number, path in enumerate(sorted((raw / "all_sqe").glob("*.json"))):
        path.rename(path.with_name(f"other{number:02}.json"))
    plan = detect([locate(raw)])
    assert (plan.dataset, plan.class_names, plan.skipped) == ("x", ("a", "b"), ())
    clips = [clip for job in plan.jobs for clip in job.read()]
    assert [clip.facts.subject for clip in clips] == list(range(8))
