"""Descriptions of custom skeletons: what they contain, and all problems at once."""

import json

import pytest

from sgnray.config.custom import parse_description
from sgnray.errors import InputError

WHOLE = """\
format_version: 1
dataset: my-kinect
clips: clips.parquet
joints: [pelvis, spine, head]
bones: [[spine, pelvis], [head, spine]]
coordinates: 3
origin: spine
classes: [wave, clap]
splits:
  people: {test: {subject: [3, 4]}}
  left-camera: {train: {camera: [1]}, test: {camera: [2]}}
  given: {train: [clip-a, clip-b], test: [clip-c]}
"""


def problems(text):
    with pytest.raises(InputError) as caught:
        parse_description(text, source="mine.yaml")
    assert caught.value.where.startswith("mine.yaml")
    return [(problem.where, problem.what) for problem in caught.value.problems]


def test_a_whole_description():
    found = parse_description(WHOLE, source="mine.yaml")
    assert found.clips == ("clips.parquet",)
    assert found.bones == (("spine", "pelvis"), ("head", "spine"))
    assert found.splits["people"].train is None
    assert found.splits["people"].test == {"subject": (3, 4)}
    assert problems(WHOLE.replace("[wave, clap]", "[wave]")) == [
        ("classes (line 8)", "must be a list of at least two names")
    ]
    assert found.splits["given"].train == ("clip-a", "clip-b")


def test_a_description_may_be_json():
    content = {"dataset": "a", "clips": "x", "joints": ["a"], "classes": ["wave 👋", "bière"]}
    for is_ascii in (True, False):
        text = json.dumps(content, ensure_ascii=is_ascii)
        assert parse_description(text, source="mine.yaml").classes == ("wave 👋", "bière")
    assert problems(json.dumps(content | {"classes": ["\ud83d", "b"]})) == [
        ("classes (line 1)", "must be a list of at least two names")
    ]


def test_what_may_be_left_out():
    text = "dataset: a\nclips: [x, y]\njoints: [a]\nclasses: [b, c]\n"
    found = parse_description(text, source="mine.yaml")
    assert (found.coordinates, found.origin, found.bones, found.splits) == (3, None, (), {})


def test_wrong_values_are_listed_at_once():
    text = (
        "dataset: My Kinect\nclips: []\njoint: [a]\njoints: [a, 3]\nbones: [[a, b, c]]\n"
        "coordinates: 4\norigin: 2\nsplits:\n"
        "  a: {tests: [x]}\n  b: {test: {subjects: [1]}}\n  C: {test: [x]}\n  d: {test: [1]}\n"
    )
    rule = (
        "must be train, test or both: a list of clips' names, or numbers by column "
        "(subject, camera, setup, replication) like {subject: [3, 4]}"
    )
    name = "the case must be named by lower-case letters, digits, - and _; quote a number"
    assert sorted(problems(text)) == [
        ("bones (line 5)", "must be a list of [child, parent] joints"),
        ("classes", "is missing; it must be a list of at least two names"),
        ("clips (line 2)", "must be a file or a list of files, next to this one"),
        ("coordinates (line 6)", "must be 2 or 3"),
        (
            "dataset (line 1)",
            "must be a name such as my-kinect: lower-case letters, digits, - and _",
        ),
        ("joint (line 3)", "unknown key; did you mean joints?"),
        ("joints (line 4)", "entry 2 of joints is not text: put it in quotes"),
        ("origin (line 7)", "names a joint that is not text: put it in quotes"),
        ("splits.C (line 11)", name),
        ("splits.a (line 9)", rule),
        ("splits.b (line 10)", rule),
        ("splits.d (line 12)", rule),
    ]


@pytest.mark.parametrize(
    ("classes", "wrong"),
    [("[1, 2, 3]", 1), ("[true, false]", 1), ("[wave, sitz: hin]", 2), ("[a, b, {}, 4]", 3)],
)
def test_a_name_that_needs_quotes_is_named(classes, wrong):
    found = problems(WHOLE.replace("[wave, clap]", classes))
    what = f"entry {wrong} of classes is not text: put it in quotes"
    assert found == [("classes (line 8)", what)]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (
            ("[spine, pelvis]", "[1, pelvis]"),
            "bones (line 5)",
            "names a joint that is not text: put",
        ),
        (("origin: spine", "origin: 1"), "origin (line 7)", "names a joint that is not text: put"),
        (("people: {", "1: {"), "splits.1 (line 10)", "the case must be named by"),
        (("[spine, pelvis]", "[spin, pelvis]"), "bones (line 5)", "'spin' is not a joint; did you"),
        (("[head, spine]", "[head, head]"), "bones (line 5)", "'head' cannot be its own parent"),
        (("origin: spine", "origin: hip"), "origin (line 7)", "'hip' is not a joint"),
        (("spine, head]", "spine, spine]"), "joints (line 4)", "has 'spine' twice"),
        (("[wave, clap]", "[clap, clap]"), "classes (line 8)", "has 'clap' twice"),
        (("[clip-a, clip-b]", "[c, c]"), "splits.given (line 12)", "names the clip 'c' twice"),
        (("{test: {subject: [3, 4]}}", "{}"), "splits.people (line 10)", "needs train, test or"),
        (("{subject: [3, 4]}", "{}"), "splits.people (line 10)", "names no column"),
        (("coordinates: 3", "dataset: b"), "dataset (line 6)", "given twice, first on line 2"),
    ],
)
def test_what_contradicts_itself(change, where, what):
    rows_found = problems(WHOLE.replace(*change))
    assert any(place == where and words.startswith(what) for place, words in rows_found), rows_found


def test_a_newer_description_asks_for_an_update():
    with pytest.raises(InputError) as caught:
        parse_description("format_version: 99", source="mine.yaml")
    assert caught.value.now == "update sgnray"


@pytest.mark.parametrize("text", ["", "a: [", "[1]", "&a [*a]", "format_version: 2", "- x\n" * 3])
def test_a_file_that_is_not_a_description_is_refused(text):
    assert problems(text) == []
