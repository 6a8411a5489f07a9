"""The published splits, counted over the names of every NTU clip that has a skeleton.

tests/golden/prepare/ntu_names.txt.xz: the 113,945 file names of NTU RGB+D 120 that remain after
the published list of missing skeletons (facts; the first 17 setups are NTU RGB+D 60).
"""

import dataclasses
import lzma
from pathlib import Path

import numpy as np
import pytest

from sgnray.data.datasets import DATASETS, read_class_names, read_missing_names
from sgnray.data.protocols import (
    ClipTable,
    Split,
    cases_of,
    corrected_labels,
    resolve_case,
    split_clips,
    split_counts,
    validation_folds,
)
from sgnray.errors import InputError, UsageError

NAMES = Path(__file__).parents[2] / "golden" / "prepare" / "ntu_names.txt.xz"


@pytest.fixture(scope="module")
def ntu120():
    return make_clips(lzma.decompress(NAMES.read_bytes()).decode().split())


@pytest.fixture(scope="module")
def ntu60(ntu120):
    return make_clips([name for name in ntu120.names if int(name[1:4]) <= 17])


def make_clips(names):
    def numbers(start):
        return np.array([int(name[start : start + 3]) for name in names], np.int64)

    return ClipTable(
        names=tuple(names),
        labels=numbers(17) - 1,
        setups=numbers(1),
        cameras=numbers(5),
        subjects=numbers(9),
        replications=numbers(13),
        num_frames=np.full(len(names), 50, np.int64),
    )


@pytest.mark.parametrize("name", DATASETS)
def test_each_published_class_has_a_name(name):
    known = DATASETS[name]
    assert len(set(read_class_names(name))) == (0 if known.is_synthetic else known.num_classes)


def test_published_counts(ntu60, ntu120):
    assert split_counts("ntu60", ntu60) == {"cs": (40_091, 16_487), "cv": (37_646, 18_932)}
    for name, clips in (("ntu60", ntu60), ("ntu120", ntu120)):
        expected = {
            case: (known.num_train, known.num_test) for case, known in DATASETS[name].cases.items()
        }
        assert split_counts(name, clips) == expected
    assert split_counts("ntu120", ntu120) == {"csub": (63_026, 50_919), "cset": (54_468, 59_477)}


def test_missing_lists(ntu120):
    missing = read_missing_names()
    assert len(missing) == 535
    assert sum(int(name[1:4]) <= 17 for name in missing) == 302
    assert not missing & set(ntu120.names)


@pytest.mark.parametrize(
    ("dataset", "case"),
    [("ntu60", "cs"), ("ntu60", "cv"), ("ntu120", "csub"), ("ntu120", "cset"), ("synth", "cset")],
)
def test_parts_are_disjoint_and_ascending(ntu60, ntu120, dataset, case):
    clips = ntu60 if dataset == "ntu60" else ntu120
    split = split_clips(dataset, case, clips)
    both = np.concatenate([split.train, split.test])
    assert np.array_equal(np.sort(both), np.arange(len(clips.names)))
    assert np.all(np.diff(split.train) > 0)
    assert np.all(np.diff(split.test) > 0)


@pytest.mark.parametrize(
    ("dataset", "case", "column", "num_folds", "num_held_out"),
    [
        ("ntu60", "cs", "subjects", 1, 4),
        ("ntu120", "csub", "subjects", 1, 11),
        ("ntu120", "cset", "setups", 1, 3),
        ("ntu60", "cv", "cameras", 2, 1),
    ],
)
def test_validation_mirrors_the_case(ntu60, ntu120, dataset, case, column, num_folds, num_held_out):
    clips = ntu60 if dataset == "ntu60" else ntu120
    split = split_clips(dataset, case, clips)
    folds = validation_folds(dataset, case, clips)
    groups = getattr(clips, column)
    assert len(folds) == num_folds
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.test])), split.train)
        assert np.unique(groups[fold.test]).size == num_held_out
        assert not set(groups[fold.test]) & set(groups[fold.train])


def test_nwucla_trains_on_two_views():
    clips = make_clips([f"S001C{camera:03}P001R001A001" for camera in (1, 2, 3, 3, 2, 1)])
    split = split_clips("nwucla", "xview", clips)
    assert split.train.tolist() == [0, 1, 4, 5]
    assert split.test.tolist() == [2, 3]
    folds = validation_folds("nwucla", "cv", clips)
    assert [fold.train.tolist() for fold in folds] == [[1, 4], [0, 5]]
    assert [fold.test.tolist() for fold in folds] == [[0, 5], [1, 4]]


def test_only_training_clips_of_nwucla_get_other_labels():
    subjects, cameras, labels = np.indices((11, 4, 10)).reshape(3, -1)
    clips = make_table(len(labels), labels=labels, subjects=subjects, cameras=cameras)
    corrected = corrected_labels("nwucla", clips)
    changed = np.flatnonzero(corrected != labels)
    rows = zip(
        subjects[changed], cameras[changed], labels[changed], corrected[changed], strict=True
    )
    assert sorted(rows) == [(4, 2, 4, 5), (4, 2, 5, 4), (5, 2, 6, 7), (5, 2, 7, 6)]
    assert set(changed) <= set(split_clips("nwucla", "cv", clips).train)
    with pytest.raises(UsageError, match="no labels that are known to be wrong"):
        corrected_labels("ntu60", clips)


def test_unknown_numbers_are_in_no_part():
    clips = make_clips(["S001C001P001R001A001", "S002C002P003R001A001"])
    unknown = ClipTable(
        names=("a", "b", *clips.names),
        labels=np.zeros(4, np.int64),
        setups=np.concatenate([[-1, -1], clips.setups]),
        cameras=np.concatenate([[-1, 4], clips.cameras]),
        subjects=np.concatenate([[-1, -1], clips.subjects]),
        replications=np.full(4, -1),
        num_frames=np.ones(4, np.int64),
    )
    assert split_counts("synth", unknown) == {"cs": (1, 1), "cv": (1, 1), "cset": (1, 1)}


def test_names_of_cases():
    assert cases_of("synth") == ("cs", "cv", "cset")
    assert [resolve_case("ntu60", case) for case in ("cs", "xsub", "csub", "xview")] == [
        "cs",
        "cs",
        "cs",
        "cv",
    ]
    assert [resolve_case("ntu120", case) for case in ("cs", "xsub", "xset")] == [
        "csub",
        "csub",
        "cset",
    ]


def test_unknown_case_lists_the_ones_there_are():
    with pytest.raises(UsageError) as caught:
        resolve_case("ntu60", "cset")
    assert caught.value.what == "ntu60 has no case 'cset'"
    assert caught.value.where == "--case cset"
    assert caught.value.now == "choose one of cs, cv"


def test_one_camera_cannot_be_split():
    clips = make_clips(["S001C002P001R001A001", "S001C002P003R001A001"])
    with pytest.raises(InputError) as caught:
        split_clips("ntu60", "cv", clips)
    assert caught.value.what == "the case cv leaves no test clips: the recordings have camera 2"
    assert caught.value.now.endswith("; skipped.csv lists the clips that were left out")
    assert split_counts("ntu60", clips)["cv"] == (2, 0)


def test_one_training_subject_cannot_be_validated():
    clips = make_clips(["S001C002P001R001A001", "S001C002P003R001A001"])
    with pytest.raises(InputError, match="cannot be validated"):
        validation_folds("ntu60", "cs", clips)


def fixed(clips, **cases):
    """Clips whose source defines the rows of training and test."""
    splits = {
        case: Split(np.array(train, np.int64), np.array(test, np.int64))
        for case, (train, test) in cases.items()
    }
    return dataclasses.replace(clips, splits=splits)


def make_table(num_clips, **columns):
    unknown = np.full(num_clips, -1)
    names = ("labels", "setups", "cameras", "subjects", "replications", "num_frames")
    numbers = {name: np.array(columns.get(name, unknown)) for name in names}
    return ClipTable(names=tuple(f"c{row}" for row in range(num_clips)), **numbers)


def test_a_fixed_split_is_the_only_case():
    clips = make_clips([f"S001C00{camera}P001R001A001" for camera in (1, 2, 3)])
    clips = fixed(clips, hand=([0, 2], [1]))
    split = split_clips("ntu60", "hand", clips)
    assert (split.train.tolist(), split.test.tolist()) == ([0, 2], [1])
    assert split_counts("ntu60", clips) == {"hand": (2, 1)}
    assert cases_of("ntu60", clips.splits) == ("hand",)
    with pytest.raises(UsageError) as caught:
        split_clips("ntu60", "cv", clips)
    assert caught.value.what == (
        "ntu60 has no case 'cv'; its source defines the split, so there are no others"
    )
    assert caught.value.now == "choose one of hand"


def test_a_fixed_split_takes_precedence_and_has_aliases():
    clips = fixed(make_clips(["S001C001P001R001A001", "S001C002P002R001A001"]), cs=([1], [0]))
    assert split_clips("ntu60", "xsub", clips).train.tolist() == [1]
    assert resolve_case("mine", "xsub", ["cs"]) == "cs"
    assert resolve_case("mine", "xview", ["xview"]) == "xview"


def test_a_fixed_part_without_clips():
    with pytest.raises(InputError, match="the case hand leaves no test clips: its source"):
        split_clips("mine", "hand", fixed(make_table(2), hand=([0, 1], [])))


def test_a_dataset_without_any_protocol_says_what_it_needs():
    assert split_counts("mine", make_table(2)) == {}
    with pytest.raises(InputError, match="add `splits` to its description"):
        cases_of("mine")


@pytest.mark.parametrize(("case", "word"), [("cs", "subject"), ("cv", "camera"), ("cset", "setup")])
def test_a_case_needs_its_column(case, word):
    with pytest.raises(InputError) as caught:
        split_clips("synth", case, make_table(3))
    assert word in caught.value.what
    assert caught.value.where.startswith("synth")
    assert split_counts("synth", make_table(3))[case] == (0, 0)


def folds_of(clips, case="hand"):
    """Rows held out by each fold, after checking that no test clip is in it."""
    train = clips.splits[case].train
    folds = validation_folds("mine", case, clips)
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.test])), train)
        assert fold.train.size
        assert fold.test.size
    return [fold.test.tolist() for fold in folds]


def test_validation_mirrors_the_column_that_separates_a_fixed_split():
    subjects = [1, 2, 3, 4, 5, 6, 7, 8, 20, 21]
    clips = fixed(make_table(10, subjects=subjects, cameras=[1] * 10), hand=(range(8), [8, 9]))
    assert folds_of(clips) == [[2, 7]]  # every fifth of the training subjects, from the third on
    cameras = [1, 1, 2, 2, 3, 4]
    clips = fixed(
        make_table(6, subjects=[1, 2, 3, 1, 2, 3], cameras=cameras), hand=(range(4), [4, 5])
    )
    assert folds_of(clips) == [[0, 1], [2, 3]]
    setups = [2, 4, 6, 1]
    assert folds_of(fixed(make_table(4, setups=setups), hand=(range(3), [3]))) == [[2]]


@pytest.mark.parametrize("num_cameras", [5, 6, 300])
def test_many_cameras_are_not_held_out_one_by_one(num_cameras):
    """A trial of a search trains a model for each fold."""
    cameras = list(range(num_cameras + 1))
    parts = (range(num_cameras), [num_cameras])
    clips = fixed(make_table(num_cameras + 1, cameras=cameras), hand=parts)
    if num_cameras == 5:
        assert folds_of(clips) == [[camera] for camera in range(5)]
    else:
        assert folds_of(clips) == [[*range(2, num_cameras, 5)]]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"subjects": [1] * 40},
        {"subjects": [*range(5), -1, *range(6, 40)]},
        {"cameras": [1] * 30 + [2] * 10},
    ],
    ids=["nothing known", "all the same", "one unknown", "one training camera"],
)
def test_otherwise_about_a_fifth_of_the_training_clips_is_held_out(columns):
    clips = fixed(make_table(40, **columns), hand=(range(30), range(30, 40)))
    (held_out,) = folds_of(clips)
    assert 2 <= len(held_out) <= 11
    # Whether a clip is held out depends on its row and on nothing else.
    fewer = fixed(make_table(40, **columns), hand=(range(20), range(30, 40)))
    assert folds_of(fewer) == [[row for row in held_out if row < 20]]


def test_small_fixed_splits():
    for num_train in range(2, 9):
        clips = fixed(make_table(9), hand=(range(num_train), [8]))
        clips.splits["hand"].train.flags.writeable = False
        assert len(folds_of(clips)) == 1
    with pytest.raises(InputError, match="cannot be validated: it trains on 1 clip"):
        validation_folds("mine", "hand", fixed(make_table(9), hand=([3], [8])))
