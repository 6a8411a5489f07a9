"""The .skeleton reader against its twin, on broken files: both accept and read the same.

A long run: SGNRAY_FUZZ=200000 SGNRAY_FUZZ_SEED=1 pytest -s --timeout 0 tests/fuzz/test_skeletons.py
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgnray.errors import ClipError
from sgnray.prepare.readers.ntu import read_skeletons

from .limits import MIB, fuzz, memory_bound
from .skeleton_files import TOKENS, break_file, make_file, skeletons
from .skeleton_twin import RefusedError, read_plainly

BATCH = 16


def test_reads_what_the_twin_reads_and_refuses_the_rest():
    tally = Counter()

    @fuzz(num_files=800, batch=BATCH)
    @given(st.lists(skeletons(), min_size=BATCH, max_size=BATCH))
    def compare(drawn):
        files = [break_file(*numbers) for numbers in drawn]
        with memory_bound(64 * MIB):
            together = read_skeletons(files)
            alone = [read_skeletons([data])[0] for data in files]
        for data, result, own in zip(files, together, alone, strict=True):
            expected = read_twin(data)
            tally["refused" if expected is None else "accepted"] += 1
            assert tell(result) == tell(own), data
            assert tell(result)[1:] == (expected or ()), data

    read_skeletons([make_file(seed) for seed in range(50)])  # what libraries load once is loaded
    compare()
    print(f"\n.skeleton files: {tally['accepted']} accepted, {tally['refused']} refused")
    assert min(tally["accepted"], tally["refused"]) > sum(tally.values()) / 8


def tell(result):
    """Make a result comparable: the words of a refusal, or the bits that were read."""
    if isinstance(result, ClipError):
        return (result.what,)
    bodies = [(body.first_frame, body.joints_TVC.tobytes()) for body in result.bodies]
    return ("", result.num_frames, bodies)


def read_twin(data):
    try:
        num_frames, bodies = read_plainly(data)
    except RefusedError:
        return None
    found = [(first, np.array(poses, np.float32).tobytes()) for first, poses in bodies.values()]
    return (num_frames, found)


@pytest.mark.parametrize("token", TOKENS)
def test_unusual_coordinates_match_the_twin(token):
    lines = [b"1", b"1", b"7 0 1 1 0 2 0 -0.29 -0.5 2", b"25", *[b"1 1 1" + b" 0" * 9] * 25]
    lines[4] = b"1 %s 1" % token + b" 0" * 9
    data = b"\n".join(lines)
    assert tell(*read_skeletons([data]))[1:] == (read_twin(data) or ())
