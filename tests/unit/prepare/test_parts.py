"""The journal keeps what was appended, in order, despite kills and corrupt files."""

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from sgnray.data.skeleton import KINECT20
from sgnray.data.skipped import Skipped
from sgnray.prepare.clip import Clip, ClipFacts, Poses
from sgnray.prepare.parts import Journal, PreparedPart, prepare_part
from sgnray.prepare.plan import RawPlan, RawSource

WIDTH = 60


class Job:
    """A job of two made-up clips and a refusal."""

    num_clips = 3

    def __init__(self, number):
        self._number = number

    def read(self):
        for index in range(2):
            values = np.full((index + 1, WIDTH), 10 * self._number + index, np.float32)
            frames = np.arange(index + 1, dtype=np.int32)
            poses = Poses(index + 1, values, frames, np.zeros(index + 1, np.int8))
            yield Clip(ClipFacts(f"clip-{self._number}-{index}", 0, subject=index), poses)
        yield Skipped(f"bad-{self._number}", "made up")


@pytest.fixture
def plan():
    source = RawSource(0, 0, "", "")
    return RawPlan("own", KINECT20, ("a",), tuple(Job(number) for number in range(4)), source)


def appended(folder, plan, num_parts):
    journal = Journal(folder, plan)
    for job in plan.jobs[journal.num_finished : num_parts]:
        journal.append(prepare_part(job, plan.skeleton))
    return journal


def num_finished(folder, plan):
    with closing(Journal(folder, plan)) as journal:
        return journal.num_finished


def content(journal):
    with closing(journal):
        gathered = journal.gather()
    names = gathered.table.column("name").to_pylist()
    return names, gathered.values_PD.copy(), gathered.skipped


def test_what_was_appended_comes_back_in_order(tmp_path, plan):
    names, values_PD, skipped = content(appended(tmp_path, plan, 4))
    assert names == [f"clip-{part}-{index}" for part in range(4) for index in range(2)]
    assert values_PD[:, 0].tolist() == [0, 1, 1, 10, 11, 11, 20, 21, 21, 30, 31, 31]
    assert skipped == tuple(Skipped(f"bad-{part}", "made up") for part in range(4))


@pytest.mark.parametrize("num_first", [0, 1, 3])
def test_a_reopened_journal_continues(tmp_path, plan, num_first):
    (tmp_path / "straight").mkdir()
    straight = content(appended(tmp_path / "straight", plan, 4))
    appended(tmp_path, plan, num_first).close()
    assert num_finished(tmp_path, plan) == num_first
    names, values_PD, skipped = content(appended(tmp_path, plan, 4))
    assert names == straight[0]
    assert np.array_equal(values_PD, straight[1])
    assert skipped == straight[2]


def test_poses_without_their_part_are_forgotten(tmp_path, plan):
    appended(tmp_path, plan, 2).close()
    with (tmp_path / "poses.f32").open("ab") as file:
        file.write(bytes(4 * WIDTH + 7))  # killed before the part's own file was there
    assert content(appended(tmp_path, plan, 4))[1].shape == (12, WIDTH)


@pytest.mark.parametrize("name", ["part-00001.arrow", "poses.f32"])
def test_parts_from_a_corrupt_one_on_are_prepared_again(tmp_path, plan, name):
    appended(tmp_path, plan, 3).close()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-300])
    assert num_finished(tmp_path, plan) == (1 if name != "poses.f32" else 2)
    assert content(appended(tmp_path, plan, 4))[1][:, 0].tolist()[-3:] == [30, 31, 31]


def test_the_journal_keeps_no_reference_to_a_part(tmp_path, plan):
    part = prepare_part(plan.jobs[0], plan.skeleton)
    subjects = np.array([5, 6], np.int16)  # memory that the journal does not own
    column = part.table.schema.get_field_index("subject")
    table = part.table.set_column(column, part.table.schema.field(column), pa.array(subjects))
    with closing(Journal(tmp_path, plan)) as journal:
        journal.append(PreparedPart(table, part.values_PD, part.skipped))
        subjects[:] = 99
        assert journal.gather().table.column("subject").to_pylist() == [5, 6]


def test_poses_that_never_reached_the_disk_are_made_again(tmp_path, plan):
    appended(tmp_path, plan, 3).close()
    data = bytearray((tmp_path / "poses.f32").read_bytes())
    data[-4:] = bytes(4)  # what a power cut may leave of a file that is long enough
    (tmp_path / "poses.f32").write_bytes(data)
    assert num_finished(tmp_path, plan) == 2
