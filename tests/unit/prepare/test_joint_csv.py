"""Columns, rows and units of CSV files that other programs write, of MediaPipe and Kinect."""

import numpy as np
import pytest

from sgnray.data.skeleton import KINECT20, MEDIAPIPE33, NTU25
from sgnray.errors import ClipError
from sgnray.prepare.readers.joint_csv import describe_columns, detect_columns, read_joint_csv

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


def test_a_number_of_frames_that_is_the_same_in_each_row_is_not_the_number_of_a_frame():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    one = [["FrameCount", *header[2:]], *(["20", *row[2:]] for row in rows)]
    recording = read_joint_csv(files.format_csv(one), NTU25)
    assert (recording.num_frames, len(recording.bodies)) == (20, 1)
    header, *rows = rows_of(files.format_kinect(TWO))
    two = [["FrameCount", *header[1:]], *(["20", *row[1:]] for row in rows)]
    assert refusal_of(two) == "it has several people, but no column Frame"


@pytest.mark.parametrize("column", ["FrameTime", "when"])
def test_several_people_without_a_column_of_frames_are_refused(column):
    header, *rows = rows_of(files.format_kinect(TWO))
    assert refusal_of([[column, *header[1:]], *rows]) == (
        "it has several people, but no column Frame"
    )
    one = [row for row in rows if row[1] == rows[0][1]]
    recording = read_joint_csv(files.format_csv([[column, *header[1:]], *one]), NTU25)
    assert recording.num_frames == 20
    for row in one[12:]:  # Kinect lost the person, and gave another id
        row[1] = "99"
    again = read_joint_csv(files.format_csv([[column, *header[1:]], *one]), NTU25)
    assert [body.first_frame for body in again.bodies] == [0, 12]


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


@pytest.mark.parametrize("skeleton", [NTU25, KINECT20, MEDIAPIPE33], ids=lambda item: item.name)
def test_joints_in_millimeters_are_refused(skeleton):
    person_TVC = 1000 * files.move(skeleton, 9)
    person_TVC[:3] = np.nan
    if skeleton is MEDIAPIPE33:
        data = files.format_mediapipe(person_TVC)
    else:
        data = files.format_kinect([person_TVC], skeleton).replace(b"nan", b"")
    assert refusal_of(rows_of(data), skeleton) == (
        "its people are larger than 20 m: these are not meters"
    )


def test_a_single_joint_that_is_far_away_is_not_another_unit():
    person_TVC = files.move(NTU25)
    person_TVC[3, 5] = 100
    assert read_joint_csv(files.format_kinect([person_TVC]), NTU25).num_frames == 20


def test_repeated_columns_that_are_not_used_are_ignored():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    header = ["State", *header, "State", "", "", ""]
    data = files.format_csv([header, *(["Tracked", *row, "2", "a", "", ""] for row in rows)])
    (body,) = read_joint_csv(data, NTU25).bodies
    np.testing.assert_allclose(body.joints_TVC, TWO[0], atol=1e-5)


@pytest.mark.parametrize("column", ["Frame", "TrackingId", "SpineMid.Z"])
def test_repeated_columns_that_are_used_are_refused(column):
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows = [[column, *header], *(["1", *row] for row in rows)]
    assert refusal_of(rows) == f"there are several columns {column!r}"


@pytest.mark.parametrize("delimiter", [b";", b"\t"])
def test_numbers_may_have_decimal_commas(delimiter):
    data = files.format_kinect(TWO)
    header, line_end, rows = data.replace(b",", delimiter).partition(b"\n")
    data = header + line_end + rows.replace(b".", b",")
    recording = read_joint_csv(data, NTU25)
    for body, person_TVC in zip(recording.bodies, TWO, strict=True):
        np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


def test_numbers_with_decimal_commas_and_points_are_refused():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows[1][2], rows[2][2] = "0,5", "0.5"
    data = "\n".join(";".join(row) for row in [header, *rows]).encode()
    with pytest.raises(ClipError, match=r"line 3, column SpineBase\.X: invalid value"):
        read_joint_csv(data, NTU25)


@pytest.mark.parametrize("words", [("High", "Low"), ("1", "0")])
def test_the_confidence_of_kinect_in_the_state_of_a_hand_is_not_that_of_a_joint(words):
    """Otherwise a hand would be missing whenever Kinect cannot tell if it is open."""
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    states = ["HandLeftState", "HandLeftConfidence", "HandRightState", "HandRightConfidence"]
    cells = [["Open", words[number < 3], "Closed", words[1]] for number in range(len(rows))]
    data = files.format_csv([header + states, *map(list.__add__, rows, cells)])
    (body,) = read_joint_csv(data, NTU25).bodies
    np.testing.assert_allclose(body.joints_TVC, TWO[0], atol=1e-5)


def test_the_confidence_of_each_joint_of_kinect_is_its_score():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    header += [f"{name}Confidence" for name in files.kinect_names(NTU25)]
    rows = [[*row, *["1"] * 25] for row in rows]
    rows[5][header.index("HandLeft.X")], rows[5][header.index("HandLeftConfidence")] = "9", "0"
    (body,) = read_joint_csv(files.format_csv([header, *rows]), NTU25).bodies
    np.testing.assert_allclose(np.delete(body.joints_TVC, 5, 0), np.delete(TWO[0], 5, 0), atol=1e-5)
    assert abs(body.joints_TVC[5] - TWO[0][5]).max() < 0.1


def test_several_people_of_mediapipe_need_ids():
    """Their world landmarks overlap, so they cannot be tracked."""
    people = [rows_of(files.format_mediapipe(files.move(MEDIAPIPE33, seed=n))) for n in (0, 1)]
    header = ["frame", "BodyId", *people[0][0]]
    rows = [
        [str(frame), str(body), *row]
        for frame, both in enumerate(zip(people[0][1:], people[1][1:], strict=True))
        for body, row in enumerate(both)
    ]
    recording = read_joint_csv(files.format_csv([header, *rows]), MEDIAPIPE33)
    assert [body.num_frames for body in recording.bodies] == [20, 20]
    without = [[row[0], *row[2:]] for row in [header, *rows]]
    assert refusal_of(without, MEDIAPIPE33) == (
        "a frame has 2 people, whose world landmarks overlap: run MediaPipe with num_poses=1, or "
        "add the column BodyId"
    )
    nobody = [["3", *["0"] * (len(header) - 2)] for _ in range(2)]
    one = [without[0], *without[1:6:2], *nobody]
    assert read_joint_csv(files.format_csv(one), MEDIAPIPE33).num_frames == 3


@pytest.mark.parametrize("word", ["v", "vis", "visible", "visibility", "score", "conf"])
def test_the_score_of_a_joint_whatever_its_column_is_called(word):
    person_TVC = files.move(MEDIAPIPE33)
    header, *rows = rows_of(files.format_mediapipe(person_TVC))
    rows[5][:4] = ["9", "9", "9", "0.1"]
    header = [name.replace("visibility", word) for name in header]
    (body,) = read_joint_csv(files.format_csv([header, *rows]), MEDIAPIPE33).bodies
    np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=0.05)


@pytest.mark.parametrize("num_axes", [3, 4])
@pytest.mark.parametrize("has_index", [False, True])
def test_the_header_that_pandas_writes_without_names_is_no_frame(num_axes, has_index):
    person_TVC = files.move(MEDIAPIPE33)
    rows = [
        [cell for number, cell in enumerate(row) if number % 4 < num_axes]
        for row in rows_of(files.format_mediapipe(person_TVC, is_headed=False))
    ]
    table = [list(map(str, range(33 * num_axes))), *rows]
    if has_index:
        table = [[*("" if n == 0 else str(n - 1),), *row] for n, row in enumerate(table)]
    data = files.format_csv(table)
    assert detect_columns(data, MEDIAPIPE33) is MEDIAPIPE33
    (body,) = read_joint_csv(data, MEDIAPIPE33).bodies
    np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


@pytest.mark.parametrize("column", ["class", "Label", "video_name", "file"])
def test_a_table_of_several_recordings_is_refused(column):
    header, *rows = rows_of(files.format_mediapipe(files.move(MEDIAPIPE33)))
    half = len(rows) // 2

    def with_column(value_of):
        values = (value_of(number) for number in range(len(rows)))
        return [
            [column, *header],
            *([value, *row] for value, row in zip(values, rows, strict=True)),
        ]

    assert refusal_of(with_column(lambda row: "wave" if row < half else "clap"), MEDIAPIPE33) == (
        f"it has several recordings: its column {column} has 2 values, such as wave, clap: "
        "write a file for each"
    )
    for value_of in (lambda row: "wave", "{}.png".format):  # of the recording; of each frame
        recording = read_joint_csv(files.format_csv(with_column(value_of)), MEDIAPIPE33)
        assert recording.num_frames == len(rows)


def test_a_coordinate_that_is_not_finite_is_named_by_its_row():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows[6][5] = "inf"
    assert refusal_of([header, *rows]) == (
        "row 7 below the header: a coordinate is not finite, or too large for float32"
    )


@pytest.mark.parametrize(
    "form",
    ["landmark_{0}_{2}", "lm{0}_{2}", "{2}_landmark_{0}", "pose_landmark_{0}_{2}", "{0}_{2}",
     "PoseLandmark.{1}_{2}", "{2}_{1}", "{1}.{2}", "{1} {2}",
     "landmark_{0:02}_{2}", "{2}{0:02}", "pose_{0}_{2}", "joint_{0}_{2}", "kp{0}_{2}",
     "{2}_kp{0:02}", "landmarks_{0}_{2}", "Pose.Point{0:03}.{2}",
     "{1}_world_{2}", "world_{1}_{2}", "{2}_world_{1}", "world_landmark_{0}_{2}",
     "pose_world_landmark_{0}_{2}", "pose_world_landmarks_{0:02}_{2}", "world_{0}_{2}"],
)  # fmt: skip
@pytest.mark.parametrize("first", [0, 1])
def test_the_columns_of_landmarks_whatever_their_form(form, first):
    """Of Holistic's columns, those of the pose are used."""
    person_TVC = files.move(MEDIAPIPE33)
    names = [joint.replace(" ", "_").upper() for joint in MEDIAPIPE33.joints]
    header = [
        form.format(number, name, axis)
        for number, name in enumerate(names, first)
        for axis in ("x", "y", "z", "visibility")
    ]
    _, *rows = rows_of(files.format_mediapipe(person_TVC))
    others = [f"{part}_landmark_{n}_x" for part in ("face", "hand") for n in (0, 1)]
    data = files.format_csv([others + header, *(["7"] * len(others) + row for row in rows)])
    assert detect_columns(data, MEDIAPIPE33) is MEDIAPIPE33
    (body,) = read_joint_csv(data, MEDIAPIPE33).bodies
    np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("image", "world"),
    [("{1}_{2}", "{1}_world_{2}"), ("landmark_{0}_{2}", "world_landmark_{0}_{2}"),
     ("pose_{0}_{2}", "pose_world_{0}_{2}"), ("{1}_{2}", "world_{0}_{2}")],
)  # fmt: skip
def test_columns_of_world_landmarks_are_preferred(is_first, image, world):
    person_TVC = files.move(MEDIAPIPE33)
    names = [joint.replace(" ", "_").upper() for joint in MEDIAPIPE33.joints]
    form, other = (image, world) if is_first else (world, image)
    header = [
        form.format(number, name, axis)
        for form in (form, other)
        for number, name in enumerate(names)
        for axis in ("x", "y", "z", *(("visibility",) if form == image else ()))
    ]
    _, *rows = rows_of(files.format_mediapipe(person_TVC))
    points = [[cell for at, cell in enumerate(row) if at % 4 < 3] for row in rows]
    images = [["0.7" if at % 4 < 3 else cell for at, cell in enumerate(row)] for row in rows]
    both = zip(*((images, points) if is_first else (points, images)), strict=True)
    data = files.format_csv([header, *(one + other for one, other in both)])
    assert detect_columns(data, MEDIAPIPE33) is MEDIAPIPE33
    (body,) = read_joint_csv(data, MEDIAPIPE33).bodies
    np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


def test_a_single_column_of_the_world_does_not_replace_the_others():
    person_TVC = files.move(MEDIAPIPE33)
    header, *rows = rows_of(files.format_mediapipe(person_TVC))
    data = files.format_csv([[*header, "world_nose_x"], *([*row, "9"] for row in rows)])
    (body,) = read_joint_csv(data, MEDIAPIPE33).bodies
    np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


def test_points_with_other_numbers_are_not_landmarks():
    """Of two sets of 33 points, or another number of points, none are known to be a pose."""
    for parts in (["a", "b"], ["a"]):
        count = 33 if len(parts) == 2 else 34
        names = [f"{part}_{n}_{axis}" for part in parts for n in range(count) for axis in "xyz"]
        assert detect_columns(files.format_csv([names]), MEDIAPIPE33) is None


def test_landmarks_in_the_image_are_refused_whatever_the_score_of_the_hips():
    """Somebody whose hips are out of the picture: y is from 0 to 1 and down."""
    image_TVC = files.move(MEDIAPIPE33) * (0.4, -0.4, 0.4) + (0.5, 0.6, 0)
    header, *rows = rows_of(files.format_mediapipe(image_TVC * (1, -1, -1)))
    for row in rows:
        for joint in (23, 24):
            row[4 * joint + 3] = "0.01"
    assert refusal_of([header, *rows], MEDIAPIPE33).startswith("these are not world landmarks")
    world = [
        [cell if at % 4 < 3 else "0.01" if at > 92 else "0.9" for at, cell in enumerate(row)]
        for row in rows_of(files.format_mediapipe(files.move(MEDIAPIPE33)))[1:]
    ]
    assert read_joint_csv(files.format_csv([header, *world]), MEDIAPIPE33).num_frames == 20


@pytest.mark.parametrize("form", ["JointType_{0}_{1}", "{0}_Position{1}", "{0}.Position.{1}"])
def test_the_columns_of_kinect_whatever_their_form(form):
    header, *rows = rows_of(files.format_kinect(TWO))
    header[2:] = [form.format(*name.split(".")) for name in header[2:]]
    data = files.format_csv([header, *rows])
    assert detect_columns(data, NTU25, KINECT20) is NTU25
    assert len(read_joint_csv(data, NTU25).bodies) == 2


@pytest.mark.parametrize("column", ["Timestamp", "time"])
@pytest.mark.parametrize("has_ids", [True, False])
def test_rows_of_one_time_are_one_frame(column, has_ids):
    header, *rows = rows_of(files.format_kinect(TWO))
    times = [[str(16.5 + 33 * int(row[0]))] for row in rows]
    first = 1 if has_ids else 2
    data = [[column, *header[first:]], *map(list.__add__, times, [row[first:] for row in rows])]
    recording = read_joint_csv(files.format_csv(data), NTU25)
    assert recording.num_frames == 20
    for body, person_TVC in zip(recording.bodies, TWO, strict=True):
        np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)
    if has_ids:  # a row for each body that Kinect could track
        empty = [times[0] + ["0"] * 76] * 4
        again = read_joint_csv(files.format_csv([data[0], *empty, *data[1:]]), NTU25)
        assert again.num_frames == 20


@pytest.mark.parametrize(
    "times",
    [["0"] * 20, ["1"] * 10 + ["2"] * 10, ["12:30"] * 20, [""] * 20, ["9", *["3"] * 19],
     ["inf"] * 20, [str(number // 3) for number in range(20)]],
)  # fmt: skip
@pytest.mark.parametrize("first", [1, 2])
def test_times_that_do_not_count_frames_are_ignored(times, first):
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows = [[time, *row[first:]] for time, row in zip(times, rows, strict=True)]
    recording = read_joint_csv(files.format_csv([["Time", *header[first:]], *rows]), NTU25)
    (body,) = recording.bodies
    np.testing.assert_allclose(body.joints_TVC, TWO[0], atol=1e-5)


@pytest.mark.parametrize("first", [1, 2])
def test_people_one_after_the_other_with_the_same_times_are_refused(first):
    header, *rows = rows_of(files.format_kinect(TWO))
    rows = [[str(33 * int(row[0])), *row[first:]] for person in (0, 1) for row in rows[person::2]]
    why = "the times of its rows start again: sort the rows by time"
    assert refusal_of([["Timestamp", *header[first:]], *rows]) == why


def test_a_row_of_white_space_is_refused_in_one_line():
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    assert refusal_of([header, *rows, ["\t"]]).endswith("columns, got 1")


def test_two_people_in_turns_without_ids_and_frames_are_refused():
    header, *rows = rows_of(files.format_kinect(TWO))
    assert refusal_of([header[2:], *(row[2:] for row in rows)]) == (
        "its rows alternate between two people: add the columns Frame and BodyId"
    )
    walk_TVC = files.move(NTU25, walk_m=12)  # far in each step, but onwards
    header, *rows = rows_of(files.format_kinect([walk_TVC]))
    data = files.format_csv([header[2:], *(row[2:] for row in rows)])
    assert len(read_joint_csv(data, NTU25).bodies) == 1


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("line", ["sep={}\r\n", '"sep={}"\n', "SEP={}\n"])
def test_the_first_line_of_excel_is_not_the_header(line, delimiter):
    data = files.format_kinect(TWO).replace(b",", delimiter.encode())
    marked = b"\xef\xbb\xbf" + line.format(delimiter).encode() + data
    assert detect_columns(marked, NTU25, KINECT20) is NTU25
    expected = read_joint_csv(data, NTU25).bodies
    for body, other in zip(read_joint_csv(marked, NTU25).bodies, expected, strict=True):
        assert body.joints_TVC.tobytes() == other.joints_TVC.tobytes()
    first, second, third, rest = data.split(b"\n", 3)
    cells = third.split(delimiter.encode())
    broken = [first, second, delimiter.encode().join([*cells[:2], b"high", *cells[3:]]), rest]
    with pytest.raises(ClipError, match=r"malformed CSV: line 4, column SpineBase\.X: invalid val"):
        read_joint_csv(line.format(delimiter).encode() + b"\n".join(broken), NTU25)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_rows_may_end_in_a_comma(delimiter):
    """Without one in the header: programs write it after each number."""
    header, *rows = files.format_kinect(TWO).replace(b",", delimiter.encode()).splitlines()
    expected = read_joint_csv(b"\n".join([header, *rows]), NTU25).bodies
    data = b"\n".join([header, *(row + delimiter.encode() for row in rows)])
    for body, other in zip(read_joint_csv(data, NTU25).bodies, expected, strict=True):
        assert body.joints_TVC.tobytes() == other.joints_TVC.tobytes()
    with pytest.raises(ClipError, match="malformed CSV: line 41, column 78, which has no name"):
        read_joint_csv(data + b"7", NTU25)
    with pytest.raises(ClipError, match="malformed CSV: CSV parse error"):
        read_joint_csv(b"\n".join([header, rows[0], *data.splitlines()[2:]]), NTU25)


@pytest.mark.parametrize("cell", ["", "None", "none", "NaN", "null"])
def test_cells_of_missing_joints(cell):
    header, *rows = rows_of(files.format_kinect([TWO[0]]))
    rows[5][2:5] = [cell] * 3
    (body,) = read_joint_csv(files.format_csv([header, *rows]), NTU25).bodies
    np.testing.assert_allclose(body.joints_TVC, TWO[0], atol=0.05)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (["frame", "landmark", "x", "y", "z", "visibility"], "it has a row for each joint: write "),
        (["Frame", "Joint", "X", "Y", "Z"], "it has a row for each joint: write a row for each fr"),
        (["time", "x", "y", "z"], "its columns are time, x, y, z, not x, y and z of the joints of"),
        (["0", "0.5", "-1e-3", ""], "its first line has numbers, not names of columns, such"),
        (["frame", "nose_x", "nose_y"], "its columns are frame, nose_x, nose_y, not x, y and z of"),
        (["a", "b"], ""),
    ],
)
def test_advice_for_other_files(tmp_path, header, reason):
    """Such as a row for each joint, as pandas may melt it, or no header."""
    data = files.format_csv([header, [0, "nose", 0.1, 0.2, 0.3][: len(header)]])
    assert detect_columns(data, NTU25) is detect_columns(data, MEDIAPIPE33) is None
    assert describe_columns(data).startswith(reason)
    assert bool(reason) == bool(describe_columns(data))


@pytest.mark.parametrize("name", ["BodyIndex", "body idx", "SkeletonID", "player_id"])
def test_the_ids_of_people_whatever_their_column_is_called(name):
    """Kinect's own id, which no other person gets, is preferred."""
    header, *rows = rows_of(files.format_kinect(TWO))
    for one, other in zip(rows[2::4], rows[3::4], strict=True):  # overlaps would not tell them
        one[1], other[1] = other[1], one[1]
    expected = read_joint_csv(files.format_csv([header, *rows]), NTU25).bodies
    renamed = [["Frame", name, *header[2:]], *rows]
    both = [[name, *header], *(["1", *row] for row in rows)]
    for lines in (renamed, both):
        found = read_joint_csv(files.format_csv(lines), NTU25).bodies
        assert [body.joints_TVC.tobytes() for body in found] == [
            body.joints_TVC.tobytes() for body in expected
        ]
