"""A valid dataset, and each way in which one can be damaged."""

import numpy as np
import pytest

from sgnray.data import verify
from sgnray.data.skipped import write_skipped
from sgnray.data.verify import verify_dataset
from sgnray.errors import InputError


def problems_of(folder):
    with pytest.raises(InputError) as caught:
        verify_dataset(folder)
    assert caught.value.where == str(folder)
    assert caught.value.now == "prepare it again: sgn prepare --raw PATH --overwrite"
    return [(problem.where, problem.what) for problem in caught.value.problems]


def test_a_whole_dataset(folder, hand_made):
    info = verify_dataset(folder)
    assert (info.num_clips, info.num_poses, info.dataset) == (5, 12, "sticks")


def test_progress_goes_through_the_file_twice(folder, monkeypatch):
    monkeypatch.setattr(verify, "_MIB", 1)
    steps = []
    verify_dataset(folder, lambda done, total: steps.append((done, total)))
    size = (folder / "clips.arrow").stat().st_size
    assert {total for _, total in steps} == {2 * size}
    assert steps[0] == (size, 2 * size)
    assert steps[-1] == (size + 12 * 6 * 4, 2 * size)


def test_one_flipped_bit(folder):
    path = folder / "clips.arrow"
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(71).tobytes())] ^= 1
    path.write_bytes(data)
    ((where, what),) = problems_of(folder)
    assert where == "clips.arrow"
    assert what.startswith("its checksum is sha256:")


@pytest.mark.parametrize("block_poses", [1, 5, 1000])
@pytest.mark.parametrize(
    ("column", "index", "value", "what"),
    [
        (
            "values",
            6 * 6,
            np.nan,
            "1 pose with numbers that are not finite, the first in clip-4",
        ),
        ("values", 71, -np.inf, "1 pose with numbers that are not finite, the first in clip-5"),
        ("frame", 5, 9, "1 pose outside of the frames of a clip, the first in clip-3"),
        ("frame", 0, -1, "1 pose outside of the frames of a clip, the first in clip-1"),
        ("body", 11, -1, "1 pose with a body below 0, the first in clip-5"),
        ("label", 1, 4, "1 clip with a label that is not one of the 4 classes"),
        ("label", 1, -1, "1 clip with a label that is not one of the 4 classes"),
        ("name", 1, "clip-1", "1 clip with the same name as another"),
        ("name", 1, "clip-0", "the clips are not sorted by name: clip-0 comes after clip-1"),
        ("num_frames", 4, 1, "1 pose outside of the frames of a clip, the first in clip-5"),
    ],
)
def test_one_wrong_value(hand_made, tmp_path, monkeypatch, column, index, value, what, block_poses):
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 24 * block_poses)
    (hand_made.values if column == "values" else hand_made.columns[column])[index] = value
    folder = hand_made.write(tmp_path / "sticks", splits=None)
    assert problems_of(folder) == [("clips.arrow", what)]


def test_the_first_of_many_is_named(hand_made, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 24)
    hand_made.values[[13, 14, 71]] = np.inf
    assert problems_of(hand_made.write(tmp_path / "sticks")) == [
        ("clips.arrow", "2 poses with numbers that are not finite, the first in clip-2")
    ]


def test_a_clip_without_poses(hand_made, tmp_path):
    hand_made.offsets[1] = 0
    hand_made.columns["num_frames"][1] = 9
    assert problems_of(hand_made.write(tmp_path / "sticks")) == [
        ("clips.arrow", "1 clip without poses, the first is clip-1")
    ]


def test_counts(hand_made, tmp_path):
    folder = hand_made.write(tmp_path / "sticks", num_clips=6, num_poses=11, num_skipped=4)
    assert problems_of(folder) == [
        ("clips.arrow", "has 5 clips, dataset.json says 6"),
        ("clips.arrow", "has 12 poses, dataset.json says 11"),
        ("skipped.csv", "has 3 rows, dataset.json says 4"),
    ]


def test_a_dataset_without_clips(hand_made, tmp_path):
    hand_made.columns = {name: [] for name in hand_made.columns}
    hand_made.offsets, hand_made.values = [0], np.empty(0, np.float32)
    folder = hand_made.write(tmp_path / "sticks", num_clips=0, num_poses=0, splits=None)
    assert problems_of(folder) == [("clips.arrow", "has no clip")]


def test_a_dataset_without_poses(hand_made, tmp_path):
    hand_made.columns |= {"frame": [], "body": []}
    hand_made.offsets, hand_made.values = [0] * 6, np.empty(0, np.float32)
    folder = hand_made.write(tmp_path / "sticks", num_poses=0)
    assert problems_of(folder) == [("clips.arrow", "5 clips without poses, the first is clip-1")]


def test_poses_that_belong_to_no_clip(folder):
    path = folder / "clips.arrow"
    before, after = (np.array([0, 2, 5, 6, 10, end], np.int32).tobytes() for end in (12, 11))
    assert path.read_bytes().count(before) == 3  # poses, frame and body
    path.write_bytes(path.read_bytes().replace(before, after))
    checksum, other = problems_of(folder)
    assert checksum[1].startswith("its checksum is")
    assert other == ("clips.arrow", "some poses belong to no clip")


@pytest.mark.parametrize(("which", "name"), [(1, "frame"), (2, "body")])
def test_poses_without_a_frame_or_body(folder, which, name):
    path = folder / "clips.arrow"
    before, after = (np.array([0, end, 5, 6, 10, 12], np.int32).tobytes() for end in (2, 3))
    parts = path.read_bytes().split(before)
    parts[which : which + 2] = [after.join(parts[which : which + 2])]
    path.write_bytes(before.join(parts))
    assert problems_of(folder)[1:] == [("clips.arrow", f"not every pose has one {name}")]


def test_overlapping_clips(hand_made, tmp_path):
    hand_made.offsets[2] = 1
    ((where, what),) = problems_of(hand_made.write(tmp_path / "sticks"))
    assert where == "clips.arrow"
    assert what.startswith("cannot be read: ")


def test_a_null_in_a_required_column(hand_made, tmp_path):
    hand_made.columns["body"][3] = None
    assert ("clips.arrow", "a required value is null") in problems_of(
        hand_made.write(tmp_path / "sticks")
    )


def test_splits_that_name_unknown_clips(hand_made, tmp_path):
    splits = {"hand": {"train": ["clip-1", "clip-9"], "test": ["clip-8"]}}
    folder = hand_made.write(tmp_path / "sticks", splits=splits)
    assert problems_of(folder) == [
        ("dataset.json", "the case hand names 2 unknown clips, for example clip-8")
    ]


def test_all_problems_come_at_once(hand_made, tmp_path):
    hand_made.values[0] = np.nan
    hand_made.columns["label"][0] = 9
    folder = hand_made.write(tmp_path / "sticks", checksum=f"sha256:{'0' * 64}")
    write_skipped(folder / "skipped.csv", ())
    assert [what.partition(" ")[0] for _, what in problems_of(folder)] == ["its", "1", "1", "has"]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("clips.arrow", None, "is missing"),
        ("clips.arrow", b"", "cannot be read: "),
        ("clips.arrow", b"something else entirely", "cannot be read: "),
        ("skipped.csv", None, "the list of skipped files cannot be read: it is missing"),
        ("skipped.csv", b"file", "the list of skipped files cannot be read: it does not begin"),
    ],
)
def test_missing_and_unrelated_files(folder, name, data, what):
    (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    assert [where for where, what_found in problems_of(folder) if what_found.startswith(what)] == [
        name
    ]


@pytest.mark.parametrize("num_bytes", [1, 10, 200, 1000, 2000])
def test_a_file_that_was_cut(folder, num_bytes):
    path = folder / "clips.arrow"
    path.write_bytes(path.read_bytes()[:-num_bytes])
    checksum, torn = problems_of(folder)
    assert checksum[1].startswith("its checksum is")
    assert torn[1].startswith("cannot be read: ")


def test_any_flipped_byte_is_a_problem_and_never_a_crash(folder):
    path = folder / "clips.arrow"
    whole = path.read_bytes()
    for index in np.random.default_rng(0).integers(0, len(whole), 150):
        data = bytearray(whole)
        data[index] ^= 0xFF
        path.write_bytes(data)
        assert problems_of(folder)


def test_a_dataset_of_another_skeleton(hand_made, tmp_path):
    from sgnray.data.skeleton import NTU25

    folder = hand_made.write(tmp_path / "sticks", skeleton=NTU25)
    assert problems_of(folder) == [("clips.arrow", "does not have the columns for this skeleton")]


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="dataset not found"):
        verify_dataset(tmp_path / "absent")
