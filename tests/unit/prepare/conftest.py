import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "prepare"


def assert_equal(one, other):
    """Compare two recordings to the bit."""
    assert one.num_frames == other.num_frames
    for mine, its in zip(one.bodies, other.bodies, strict=True):
        assert mine.first_frame == its.first_frame
        assert mine.joints_TVC.tobytes() == its.joints_TVC.tobytes()


@pytest.fixture(scope="session")
def golden_raw(tmp_path_factory):
    """The folders raw (31 files) and malformed (14) of the golden archive."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "raw.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def make_skeleton():
    """Text of an NTU file: bodies is a list of {id: (25, 3) array} per frame."""

    def make(frames, newline="\n"):
        lines = [str(len(frames))]
        for bodies in frames:
            lines.append(str(len(bodies)))
            for body_id, joints in bodies.items():
                lines += [f"{body_id} 0 1 1 0 2 0 -0.29 -0.5 2", "25"]
                lines += [
                    " ".join([*(f"{number:.8g}" for number in joint), *["0"] * 9])
                    for joint in joints
                ]
        return newline.join([*lines, ""]).encode()

    return make


@pytest.fixture
def make_nwucla(tmp_path):
    """Write `num_files` tiny NW-UCLA files, of 1 to 3 frames of made-up numbers, into a folder."""

    def make(num_files, folder="nwucla", seed=0):
        path = tmp_path / folder / "all_sqe"
        path.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for index in range(num_files):
            name = f"a{index % 6 + 1:02}_s{index // 18 + 1:02}_e00_v{index // 6 % 3 + 1:02}"
            joints = rng.normal(size=(index % 3 + 1, 20, 3)).round(5).tolist()
            data = {"file_name": name, "skeletons": joints, "label": index % 6 + 1}
            (path / f"{name}.json").write_text(json.dumps(data))
        return tmp_path / folder

    return make
