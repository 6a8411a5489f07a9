"""Broken .zip files give clips that the twin reads the same, or they are refused.

A long run: SGNRAY_FUZZ=20000 SGNRAY_FUZZ_SEED=1 pytest -s --timeout 0 tests/fuzz/test_zips.py
"""

import os
from collections import Counter
from pathlib import PurePosixPath

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError, InputError
from sgnray.prepare.clip import Body, Clip, Recording
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.listing import list_files
from sgnray.prepare.readers.ntu import parse_ntu_name
from sgnray.prepare.readers.recordings import prepare_recordings
from sgnray.storage.location import locate

from .limits import MIB, fuzz, memory_bound
from .skeleton_twin import RefusedError, read_plainly
from .zip_files import make_zip, pack_zeros, zips

BATCH = 8
NUM_CLASSES = 60
# Errors for a valid .zip that is not a dataset.
NO_DATASET = (
    "no raw data found",
    "no recording has a known label",
    "all recordings have the label",
)


def test_gives_what_the_twin_reads_and_refuses_the_rest(tmp_path):
    tally = Counter()
    pack_zeros()

    @fuzz(num_files=240, batch=BATCH)
    @given(st.lists(zips(), min_size=BATCH, max_size=BATCH))
    def compare(drawn):
        for numbers in drawn:
            file = make_zip(*numbers)
            # A new name each time: the reader knows a .zip again by its path and time.
            tally["zips"] += 1
            found = read_zip(tmp_path / f"{tally['zips']}.zip", file.data)
            if found is None:
                tally["refused whole"] += 1
                assert not file.is_sound, numbers
                continue
            tally["clips"] += sum(poses is not None for _, poses in found)
            tally["refused clips"] += sum(poses is None for _, poses in found)
            if file.is_sound:
                tally["sound zips"] += 1
                assert sorted(found, key=repr) == sorted(expect(file.texts), key=repr), numbers
            known = {read_twin(text) for _, text in file.texts}
            assert all(poses is None or poses in known for _, poses in found), numbers

    read_zip(tmp_path / "0.zip", make_zip(1, 0, []).data)  # what libraries load once is loaded
    compare()
    print(f"\n.zip files: {dict(tally)}")
    assert min(tally["sound zips"], tally["refused whole"]) > tally["zips"] / 20
    assert min(tally["clips"], tally["refused clips"]) > tally["zips"] / 4


def read_zip(path, data):
    """Give (name, poses or None) of each recording, or None if the .zip is refused whole."""
    path.write_bytes(data)
    place = locate(path)
    try:
        with memory_bound(160 * MIB):  # twice the largest file, while it unpacks
            listing = list_files(place)
            results = [
                *listing.refused,
                *prepare_recordings(listing.files, NUM_CLASSES, parse_name=parse_ntu_name),
            ]
            try:
                detect([place])
            except InputError as error:
                if not error.what.startswith(NO_DATASET):
                    raise
    except InputError as error:
        if isinstance(error, ClipError):
            raise
        return None
    finally:
        assert os.listdir(path.parent) == [path.name]
        path.unlink()
    return [
        (f"{result.facts.name}.skeleton", tell(result.poses))
        if isinstance(result, Clip)
        else (result.name, None)
        for result in results
    ]


def expect(texts):
    """What a valid .zip contains: of members with the same path, the last one counts."""
    last = {path: index for index, (path, _) in enumerate(texts)}
    for index, (path, text) in enumerate(texts):
        name = PurePosixPath(path.replace("\\", "/")).name
        if path.endswith("/") or not name.endswith(".skeleton") or name.startswith("._"):
            continue
        is_away = path.startswith("/") or ".." in path
        is_taken = not is_away and index == last[path] and is_known(name)
        yield (name, read_twin(text) if is_taken else None)


def is_known(name):
    try:
        return parse_ntu_name(name).label < NUM_CLASSES
    except ClipError:
        return False


def read_twin(text):
    try:
        num_frames, bodies = read_plainly(text)
        tracked = tuple(
            Body(first_frame, np.array(poses, np.float32)) for first_frame, poses in bodies.values()
        )
        return tell(normalize(Recording(num_frames, tracked), NTU25))
    except (RefusedError, ClipError):
        return None


def tell(poses):
    arrays = (poses.values_PD, poses.frames, poses.bodies)
    return (poses.num_frames, *(array.tobytes() for array in arrays))
