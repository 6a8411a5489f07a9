"""Reader of CSV files with named columns, one row per frame: MediaPipe and Kinect.

Each joint has the columns x, y and z, in any order; joint_columns.py shows how they may be named.
MediaPipe's may have no header at all; of landmarks in the image and in the world, those that say
`world` are read. Optional columns are a score for each joint, the frame number (rows with the same
number, or else with the same time, are people in one frame), and the body's id.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from sgnray.data.skeleton import MEDIAPIPE33, Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import Recording, check_meters, refusal
from sgnray.prepare.readers.joint_columns import AXES, ENDS, find_columns, has_frame_numbers
from sgnray.prepare.readers.json_values import MAX_NUMBER, show_name
from sgnray.prepare.readers.people import (
    MIN_JOINTS,
    Floats,
    check_world,
    find_people,
    mark_missing,
)
from sgnray.prepare.readers.tracks import build_recording

# World landmarks have y down and z away from the camera: half a turn about the x axis.
_MEDIAPIPE_SIGNS = np.array([1.0, -1.0, -1.0])
_APART_M = 0.2  # two people are further from each other, and nobody moves this far in a frame
_NUM_SHOWN = 5
_ROW = "row {} below the header"
_MAX_HEADER = 64 * 1024
_DELIMITER_LINE = re.compile(rb'"?sep=.?"?(\r\n|\r|\n)', re.IGNORECASE)  # of Excel
_TEXTS = ("body", "time", "recording")
_MISSING = [*pa_csv.ConvertOptions().null_values, "None", "none"]
_BAD_NUMBER = re.compile(r"In CSV column #(\d+): Row #(\d+): .*(invalid value.*)")


def detect_columns(head: bytes, *skeletons: Skeleton) -> Skeleton | None:
    """Choose the skeleton with the most columns in the file; reading reports the missing ones.

    None if the file does not have two thirds of them: other sensors have joints of these names.
    """
    names, _, _ = _read_header(head)
    counts = [  # without scores, which would count like more joints
        sum(column.endswith(ENDS) for column in find_columns(names, skeleton))
        for skeleton in skeletons
    ]
    best = counts.index(max(counts))
    return skeletons[best] if counts[best] >= 2 * skeletons[best].num_joints else None


def read_joint_csv(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the frames of a recording; ClipError says what is wrong, in which row or column."""
    names, delimiter, num_skipped = _read_header(data)
    columns = find_columns(names, skeleton)
    wanted = [f"{joint}_{axis}" for joint in skeleton.joints for axis in AXES]
    missing = [name for name in wanted if name not in columns]
    if missing:
        more = f" and {len(missing) - _NUM_SHOWN} more" if len(missing) > _NUM_SHOWN else ""
        of = f"(of the {len(wanted)} of {skeleton.name})"
        raise refusal(f"column not found: {', '.join(missing[:_NUM_SHOWN])}{more} {of}")
    if twice := next((name for name in columns.values() if names.count(name) > 1), None):
        raise refusal(f"there are several columns {twice!r}")
    scores = [columns.get(f"{joint}_score") for joint in skeleton.joints]
    if skeleton is not MEDIAPIPE33 and 2 * sum(map(bool, scores)) < skeleton.num_joints:
        # The SDK's HandLeftConfidence is not that of the joint: it says if the hand is open.
        columns = {key: name for key, name in columns.items() if name not in scores}
        scores = []
    table = _read_table(data, names, delimiter, num_skipped, columns)
    _check_one_recording(table, columns)
    joints_NVC = np.stack([table[columns[name]] for name in wanted], axis=1)
    joints_NVC = joints_NVC.reshape(-1, skeleton.num_joints, len(AXES))
    scores_NV = None
    if any(scores):
        full_N = np.ones(len(joints_NVC))
        scores_NV = np.stack([table[name] if name else full_N for name in scores], axis=1)
    if skeleton is MEDIAPIPE33:  # also hips that are hardly seen are about the origin
        check_world(mark_missing(joints_NVC, number=_ROW))
    joints_NVC = mark_missing(joints_NVC, scores_NV, number=_ROW)
    if skeleton is MEDIAPIPE33:
        joints_NVC = joints_NVC * _MEDIAPIPE_SIGNS
    is_person_N = find_people(joints_NVC)
    if is_person_N.any():
        check_meters(joints_NVC[is_person_N], "these are not meters")
    bodies_N = table.get(columns.get("body", ""))
    numbers_N, starts = _assign_frames(table, columns, joints_NVC, skeleton)
    ids = None if bodies_N is None else [part.tolist() for part in np.split(bodies_N, starts)]
    numbers = numbers_N[np.concatenate(([0], starts))]
    return build_recording(np.split(joints_NVC, starts), skeleton, ids, numbers)


def _check_one_recording(table: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Refuse a table of many recordings: a column such as `class` or `video` has several values.

    If hardly any of them is repeated, they name the frames, such as the image of each row.
    """
    words_N = table.get(columns.get("recording", ""))
    if words_N is None:
        return
    values = list(dict.fromkeys(str(word) for word in words_N if word))
    if 1 < len(values) <= len(words_N) / 2:
        shown = ", ".join(map(show_name, values[:_NUM_SHOWN]))
        raise refusal(
            f"it has several recordings: its column {columns['recording']} has {len(values)} "
            f"values, such as {shown}: write a file for each"
        )


def _assign_frames(
    table: Mapping[str, Any], columns: Mapping[str, str], joints_NVC: Floats, skeleton: Skeleton
) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the frame number of each row (N), and the rows where a new frame begins.

    ClipError if the people of a frame cannot be told apart.
    """
    is_person_N = find_people(joints_NVC)
    bodies_N = table.get(columns.get("body", ""))
    given_N = _frame_numbers(table, columns)
    if given_N is None:
        centers_PC = np.nanmean(joints_NVC[is_person_N], axis=1)
        times_N = table.get(columns.get("time", ""))
        given_N = _count_times(times_N, bodies_N, is_person_N, centers_PC)
        if given_N is None and bodies_N is None and _alternate_in_space(centers_PC):
            raise refusal("its rows alternate between two people: add the columns Frame and BodyId")
    numbers_N = np.arange(len(joints_NVC), dtype=np.float64) if given_N is None else given_N
    starts = _find_frames(numbers_N)
    if skeleton is MEDIAPIPE33 and bodies_N is None:
        num_people = max(np.count_nonzero(part) for part in np.split(is_person_N, starts))
        if num_people > 1:  # each has the origin between their own hips, so boxes cannot tell
            what = f"a frame has {num_people} people, whose world landmarks overlap"
            raise refusal(f"{what}: run MediaPipe with num_poses=1, or add the column BodyId")
    if bodies_N is not None:
        if (unnamed_N := np.flatnonzero(is_person_N & (bodies_N == ""))).size:
            raise refusal(f"{_ROW.format(unnamed_N[0] + 1)}: it has no {columns['body']}")
        if given_N is None and _alternate(bodies_N[is_person_N]):
            raise refusal("it has several people, but no column Frame")
    return numbers_N, starts


def describe_columns(head: bytes) -> str:
    """Explain why a CSV file is none of MediaPipe or Kinect; empty if it has too few columns."""
    names, _, _ = _read_header(head)
    if len(names) < MIN_JOINTS:
        return ""
    words = {name.strip().lower() for name in names}
    if set(AXES) < words and re.search("joint|landmark|keypoint", " ".join(words)):
        return "it has a row for each joint: write a row for each frame (pandas: DataFrame.pivot)"
    if all(map(_is_number, names)):
        return "its first line has numbers, not names of columns, such as nose_x or SpineBase.X"
    shown = ", ".join(map(show_name, names[:_NUM_SHOWN]))
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return (
        f"its columns are {shown}{more}, not x, y and z of the joints of MediaPipe or Kinect, such "
        "as nose_x or SpineBase.X"
    )


def _read_header(data: bytes) -> tuple[list[str], str, int]:
    """Return the column names, the delimiter, and the number of lines before the first row."""
    data = data.removeprefix(codecs.BOM_UTF8)
    marked = _DELIMITER_LINE.match(data)
    num_skipped, start = (1, marked.end()) if marked else (0, 0)
    head = data[start : start + _MAX_HEADER]
    line = re.split(rb"[\r\n]", head, maxsplit=1)[0].decode("utf-8", "replace")
    delimiter = find_delimiter(line)
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    # pandas numbers columns without names, and has an unnamed one for the rows.
    index = names[:1] if names[:1] == [""] else []
    numbers = names[len(index) :]
    is_header = numbers == [str(number) for number in range(len(numbers))]
    if len(numbers) in (99, 132) and all(map(_is_number, numbers)) and (is_header or not index):
        axes = (*AXES, "v")[: len(numbers) // MEDIAPIPE33.num_joints]
        named = [f"{axis}{joint}" for joint in range(MEDIAPIPE33.num_joints) for axis in axes]
        return [*index, *named], delimiter, num_skipped + is_header
    return names, delimiter, num_skipped + 1


def find_delimiter(header: str) -> str:
    """Find what separates the cells: in some countries, spreadsheets write semicolons."""
    return max(",;\t", key=header.count)


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _read_table(
    data: bytes,
    names: list[str],
    delimiter: str,
    num_skipped: int,
    columns: Mapping[str, str],
    decimal_point: str = ".",
    *,
    has_extra: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """Read the columns as numbers, but _TEXTS as text: ids of bodies are too large for numbers."""
    # By number, because the names of other columns may be repeated.
    numbers = {name: str(names.index(name)) for name in columns.values()}
    types = dict.fromkeys(numbers.values(), pa.float64())
    types |= {numbers[columns[key]]: pa.string() for key in _TEXTS if key in columns}
    all_numbers = [str(number) for number in range(len(names) + has_extra)]
    if has_extra:  # rows that all end in a comma
        types[all_numbers[-1]] = pa.null()
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            pa_csv.ReadOptions(use_threads=False, column_names=all_numbers, skip_rows=num_skipped),
            pa_csv.ParseOptions(delimiter=delimiter),
            pa_csv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=_MISSING,
                decimal_point=decimal_point,
            ),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0][:200].strip(": \t\r\v\f")
        if found := _BAD_NUMBER.match(reason):
            if delimiter != "," != decimal_point:
                with suppress(ClipError):
                    return _read_table(
                        data, names, delimiter, num_skipped, columns, ",", has_extra=has_extra
                    )
            at = int(found[1])
            name = names[at] if at < len(names) else f"{at + 1}, which has no name"
            reason = f"line {found[2]}, column {name}: {found[3]}"
        elif not has_extra and f"Expected {len(names)} columns, got {len(names) + 1}:" in reason:
            return _read_table(data, names, delimiter, num_skipped, columns, has_extra=True)
        raise refusal(f"malformed CSV: {reason}") from error
    if table.num_rows == 0:
        raise refusal("it has no rows")
    return {name: table.column(number).to_numpy() for name, number in numbers.items()}


def _alternate(bodies_N: npt.NDArray[Any]) -> bool:
    """Return whether ids return after another: one person may get a new id, but no old one."""
    num_stretches = 1 + int((bodies_N[1:] != bodies_N[:-1]).sum()) if len(bodies_N) else 0
    return num_stretches > len(set(bodies_N))


def _alternate_in_space(centers_PC: Floats) -> bool:
    """Return whether rows alternate between two people: rows two apart are nearer."""
    if len(centers_PC) < 4:
        return False
    next_m, second_m = (
        float(np.median(np.linalg.norm(centers_PC[lag:] - centers_PC[:-lag], axis=1)))
        for lag in (1, 2)
    )
    return next_m > _APART_M and second_m < next_m / 2


def _count_times(
    times_N: npt.NDArray[Any] | None,
    bodies_N: npt.NDArray[Any] | None,
    is_person_N: npt.NDArray[np.bool_],
    centers_PC: Floats,
) -> Floats | None:
    """Count frames by the times of their rows; None if equal times do not mean one frame.

    They do if its people have different ids, or places: a clock may be too coarse for frames.
    """
    try:
        times = np.array([] if times_N is None else times_N, np.float64)
    except ValueError:  # such as 12:30
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(times, prepend=times[:1])
    own = times[is_person_N] if times.size else times
    falls = np.flatnonzero(own[1:] < own[:-1]) + 1
    if 2 * len(set(own)) <= len(own) and any(own[row] in own[:row] for row in falls):
        raise refusal("the times of its rows start again: sort the rows by time")
    is_same = own[1:] == own[:-1]
    if not is_same.any() or not np.all(steps >= 0):
        return None
    if bodies_N is not None:
        is_apart = len(set(zip(own, bodies_N[is_person_N], strict=True))) == len(own)
    else:
        steps_m = np.linalg.norm(np.diff(centers_PC, axis=0), axis=1)
        is_apart = bool(np.median(steps_m[is_same]) > _APART_M)
    return np.cumsum(steps > 0).astype(np.float64) if is_apart else None


def _frame_numbers(
    table: Mapping[str, npt.NDArray[Any]], columns: Mapping[str, str]
) -> Floats | None:
    """Return the frame of each row; None if no column has it."""
    numbers_N = table.get(columns.get("frame", ""))
    if numbers_N is None or has_frame_numbers(columns["frame"]):
        return numbers_N
    # One FrameCount in all rows is how many frames there are.
    return None if np.all(numbers_N == numbers_N[0]) else numbers_N


def _find_frames(frames_N: Floats) -> npt.NDArray[np.intp]:
    """Return the rows at which frames begin, except the first."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(frames_N)
    is_wrong_N = ~(np.abs(frames_N) < MAX_NUMBER)
    is_wrong_N[1:] |= ~(steps >= 0)
    if is_wrong_N.any():
        what = "its frame is not a number, or lower than in the row before"
        raise refusal(f"{_ROW.format(is_wrong_N.argmax() + 1)}: {what}")
    return np.flatnonzero(steps > 0) + 1
