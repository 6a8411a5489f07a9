"""JSON as other programs write it: null for NaN, and a byte order mark."""

import json

import numpy as np
import pytest

from sgnray.data.skeleton import COCO17, KINECT20, OPENPOSE25
from sgnray.errors import ClipError
from sgnray.prepare.readers.format_table import detect_content
from sgnray.prepare.readers.json_values import read_numbers
from sgnray.prepare.readers.keypoints import read_keypoints

from ... import pose_files as files
from .conftest import assert_equal

PIXELS_NVC = files.project(files.move(COCO17, 6))[:, None]


@pytest.mark.parametrize(
    "write", [files.format_mmpose, files.format_yolo, files.format_coco], ids=lambda f: f.__name__
)
def test_null_is_a_missing_joint_as_nan_is(write):
    """The JSON standard has no NaN, so its writers put null."""
    missing_NVC = PIXELS_NVC.copy()
    missing_NVC[2:4, 0, 5] = np.nan
    expected = read_keypoints(write(missing_NVC), COCO17)

    def spell(value):
        if isinstance(value, list):
            return [spell(item) for item in value]
        if isinstance(value, dict):
            return {key: spell(item) for key, item in value.items()}
        return None if type(value) is float and value == 0 else value

    text = json.dumps(spell(json.loads(write(missing_NVC))))
    assert "null" in text
    assert_equal(read_keypoints(text.encode(), COCO17), expected)


@pytest.mark.parametrize("values", [None, [None, True], [None, "1"], [None, {}], [None, 10**400]])
def test_what_is_neither_a_number_nor_null_is_refused(values):
    with pytest.raises(ClipError, match="the scores contains something that is not a number"):
        read_numbers(values, what="the scores")


@pytest.mark.parametrize("kind", ["MMPose", "YOLO", "COCO", "NW-UCLA", "OpenPose"])
def test_a_byte_order_mark_does_not_hide_a_format(kind):
    data = {
        "NW-UCLA": json.dumps({"skeletons": files.move(KINECT20, 2).tolist()}).encode(),
        "OpenPose": files.format_openpose(files.project(files.move(OPENPOSE25, 1))),
    }.get(kind) or files.make_file(kind)
    marked = b"\xef\xbb\xbf\n" + data
    found = detect_content(data)
    assert found is not None
    assert detect_content(marked) == found
    if kind != "OpenPose":  # it needs the names of frames
        reader, skeleton = found
        assert_equal(*reader.read_files([data, marked], skeleton))
