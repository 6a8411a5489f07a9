"""Columns, rows and units of CSV files that other programs write, of MediaPipe and Kinect."""

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.prepare.readers.joint_csv import read_joint_csv

from ... import pose_files as files

TWO = [files.move(NTU25, walk_m=walk_m) for walk_m in (1.0, -1.0)]


def rows_of(data):
    return [line.split(",") for line in data.decode().splitlines()]


def refusal_of(rows, skeleton=NTU25):
    with pytest.raises(ClipError) as caught:
        read_joint_csv(files.format_csv(rows), skeleton)
    return caught.value.what


@pytest.mark.parametrize(
    "column", ["frame_idx", "frame_no", "frame_index", "FrameCount", "frame", "Frame Number"]
)
def test_the_people_of_a_frame_stay_together_whatever_its_column_is_called(column):
    header, *rows = rows_of(files.format_kinect(TWO))
    recording = read_joint_csv(files.format_csv([[column, *header[1:]], *rows]), NTU25)
    assert recording.num_frames == 20
    for body, person_TVC in zip(recording.bodies, TWO, strict=True):
        np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


def test_a_column_frame_goes_before_the_number_of_frames_that_were_counted():
    header, *rows = rows_of(files.format_kinect(TWO))
    rows = [["FrameCount", *header], *(["20", *row] for row in rows)]
    assert read_joint_csv(files.format_csv(rows), NTU25).num_frames == 20


@pytest.mark.parametrize("column", ["Timestamp", "when"])
def test_several_people_without_a_column_of_frames_are_refused(column):
    header, *rows = rows_of(files.format_kinect(TWO))
    assert refusal_of([[column, *header[1:]], *rows]) == (
        "it has several people, but no column Frame"
    )
    one = [row for row in rows if row[1] == rows[0][1]]
    recording = read_joint_csv(files.format_csv([[column, *header[1:]], *one]), NTU25)
    assert recording.num_frames == 20


def test_a_row_without_a_person_needs_no_id():
    """Some exporters write a row for each frame, also while nobody is tracked."""
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    empty = [""] * (len(header) - 1)
    rows[0][1:] = rows[7][1:] = rows[19][1:] = empty
    recording = read_joint_csv(files.format_csv([header, *rows]), NTU25)
    (body,) = recording.bodies
    assert (recording.num_frames, body.first_frame) == (18, 0)
    np.testing.assert_allclose(body.joints_TVC[0], TWO[0][1], atol=1e-5)
    without_frames = [row[1:] for row in [header, *rows]]
    assert read_joint_csv(files.format_csv(without_frames), NTU25).num_frames == 18


def test_a_person_without_an_id_is_refused_also_after_rows_without_a_person():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows[0][1:] = [""] * (len(header) - 1)
    rows[4][1] = ""
    assert refusal_of([header, *rows]) == "row 5 below the header: it has no TrackingId"
