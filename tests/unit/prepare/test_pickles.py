"""The pickle reader against pickle itself, and on malicious pickles."""

import io
import os
import pickle
import random
import struct
import time
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from sgnray.errors import InputError
from sgnray.prepare.readers import pickles
from sgnray.prepare.readers.pickles import PickledArray, PickleError, read_pickle
from sgnray.storage.location import locate


def write(tmp_path, data, name="file.pkl"):
    path = tmp_path / name
    path.write_bytes(data)
    return locate(path)


def load(value):
    """Replace every PickledArray by its array."""
    if isinstance(value, PickledArray):
        return value.load()
    if isinstance(value, dict):
        return {key: load(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(load(item) for item in value)
    return value


def assert_equal(read, expected):
    if isinstance(expected, np.generic):
        expected = expected.item()
    assert type(read) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
        assert read.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert list(read) == list(expected)
        for key, item in expected.items():
            assert_equal(read[key], item)
    elif isinstance(expected, list | tuple):
        assert len(read) == len(expected)
        for one, other in zip(read, expected, strict=True):
            assert_equal(one, other)
    else:
        assert read == expected or read != read


def make_values(seed=0):
    rng = np.random.default_rng(seed)
    big = rng.normal(size=(2, 30, 25, 3))
    shared = [1, 2]
    return {
        "split": {"xsub_train": ["a", "b"], "xsub_val": ("c",)},
        "plain": [None, True, False, 0, -1, 255, 65536, 2**70, -(2**70), 1.5, "", "é" * 3],
        "sets": [{1, "x"}, frozenset({2})],
        "nested": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, [], {"k": [{}]}],
        "again": [shared, shared],
        "arrays": [big.astype(kind) for kind in ("<f2", "<f4", ">f4", "<f8", "<i8", "|u1")],
        "small": [np.float32([1, -0.0]), np.zeros((0, 3)), np.array(5, "<i2"), np.array(["ab"])],
        "orders": [np.asfortranarray(big), big.transpose(3, 0, 1, 2), big[:, ::2]],
        "scalars": [np.int64(3), np.uint8(255), np.float16(0.5), np.bool_(True), np.str_("né")],
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_pickle_reads(tmp_path, protocol):
    values = make_values()
    location = write(tmp_path, pickle.dumps(values, protocol))
    read = read_pickle(location)
    assert_equal(load(read), values)
    assert read["again"][0] is read["again"][1]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_1_names_are_known(tmp_path, protocol):
    """numpy 1 says numpy.core where numpy 2 says numpy._core."""
    values = make_values()["arrays"]
    data = pickle.dumps(values, protocol)
    for name in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + name, b"numpy.core." + name
        data = data.replace(b"c" + new + b"\n", b"c" + old + b"\n")
        data = data.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
    assert b"numpy._core" not in data
    location = write(tmp_path, data)
    assert_equal(load(read_pickle(location)), values)


def test_text_of_python_2_is_read(tmp_path):
    """Protocol 2 of Python 2 has SHORT_BINSTRING and BINSTRING; its protocols 0 and 1 are not."""
    long = b"T" + struct.pack("<i", 300) + b"b" * 300
    location = write(tmp_path, b"\x80\x02(U\x02a\xe9" + long + b"t.")
    assert read_pickle(location) == ("aé", "b" * 300)
    with pytest.raises(InputError, match="it does not begin with its protocol") as caught:
        read_pickle(write(tmp_path, b"(S'a'\np0\nI1\nt."))
    assert caught.value.now.endswith("write it again with Python 3")


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "somewhere" if obj == "here" else None


class Plain:
    pass


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_code_is_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    calls = {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "getattr": Calls(getattr, "a", "upper"),
        "numpy": Calls(np.fromfile, "/etc/hostname"),
        "test_pickles.Plain": Plain(),
        "array of Python objects": np.array([Calls(os.system, f"touch {marker}")], object),
        "OrderedDict": OrderedDict(a=1),
        "makes bytes": Calls(bytes, 2**40),
    }
    for said, value in calls.items():
        location = write(tmp_path, pickle.dumps({"annotations": [1, value]}, protocol))
        with pytest.raises(InputError) as caught:
            read_pickle(location)
        assert said in caught.value.what, caught.value.what
    assert not marker.exists()


def by_hand(*opcodes):
    return pickle.PROTO + b"\x02" + b"".join(opcodes) + pickle.STOP


def test_refuses_every_other_opcode_that_could_run_code(tmp_path):
    out = io.BytesIO()
    Persistent(out, 2).dump(["here"])
    harmful = {
        "BINPERSID": out.getvalue(),
        "PERSID": by_hand(b"Psomewhere\n"),
        "EXT1": by_hand(pickle.EXT1 + b"\x01"),
        "EXT4": by_hand(pickle.EXT4 + b"\x01\0\0\0"),
        "INST": by_hand(pickle.MARK, b"ios\nsystem\n"),
        "OBJ": by_hand(pickle.MARK, pickle.OBJ),
        "NEWOBJ": by_hand(b"cnumpy\nndarray\n", b")", pickle.NEWOBJ),
        "NEWOBJ_EX": by_hand(b"cnumpy\nndarray\n", b")}", pickle.NEWOBJ_EX),
        "NEXT_BUFFER": by_hand(pickle.NEXT_BUFFER),
        "the opcode 255": by_hand(b"\xff"),
        "os.system": by_hand(b"cos\nsystem\n"),
        "not an array": by_hand(b"}}", pickle.BUILD),
        "not a function": by_hand(b"})", pickle.REDUCE),
        "incorrectly": by_hand(b"cnumpy\ndtype\n", b"}", pickle.REDUCE),
    }
    for said, data in harmful.items():
        with pytest.raises(InputError) as caught:
            read_pickle(write(tmp_path, data))
        assert said in caught.value.what, caught.value.what


@pytest.mark.parametrize("size", [2**27, 2**31 - 1, 2**40, 2**62])
def test_large_declared_sizes_allocate_nothing(tmp_path, size):
    claims = [
        pickle.BINUNICODE8 + struct.pack("<Q", size),
        pickle.BINSTRING + struct.pack("<i", min(size, 2**31 - 1)),
        pickle.BINBYTES8 + struct.pack("<Q", size),
        pickle.BYTEARRAY8 + struct.pack("<Q", size),
        pickle.LONG4 + struct.pack("<i", min(size, 2**31 - 1)),
        pickle.FRAME + struct.pack("<Q", size),
        b"]" + pickle.LONG_BINPUT + struct.pack("<I", min(size, 2**32 - 1)),
    ]
    for claim in claims:
        location = write(tmp_path, by_hand(claim + b"few bytes"))
        tracemalloc.start()
        try:
            with pytest.raises(InputError):
                read_pickle(location)
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()


def number(value):
    return pickle.BININT + struct.pack("<i", value)


FLOATS = b"cnumpy\ndtype\n(" + pickle.SHORT_BINUNICODE + b"\x02f8tR"
EMPTY_ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\x01btR"
BOMBS = {
    "an array whose shape is only claimed": (
        EMPTY_ARRAY, b"(K\x01", number(2**30), number(2**30), b"\x86", FLOATS, b"\x89C\x08",
        bytes(8), b"tb",
    ),
    "a shape that is negative": (
        EMPTY_ARRAY, b"(K\x01", number(-1), b"\x85", FLOATS, b"\x89C\x08", bytes(8), b"tb",
    ),
    "an array made with a size": (
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n", number(2**30),
        b"\x85C\x01btR",
    ),
    "numpy.ndarray called": (b"cnumpy\nndarray\n", number(2**30), b"\x85R"),
    "a type of a gigabyte": (
        b"cnumpy\ndtype\n(", pickle.SHORT_BINUNICODE + b"\x0bS1000000000", b"tR",
    ),
    "a type with fields": (
        FLOATS, b"(K\x03", pickle.SHORT_BINUNICODE + b"\x01<", b"N}}K\1K\1K\0tb",
    ),
    "bytes of a size": (b"cbuiltins\nbytes\n", number(2**30), b"\x85R"),
    "bytearray of a size": (b"cbuiltins\nbytearray\n", number(2**30), b"\x85R"),
    "a set of a size": (b"cbuiltins\nset\n", number(2**30), b"\x85R"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_allocate(tmp_path, name):
    location = write(tmp_path, by_hand(*BOMBS[name]))
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_pickle(location)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["set", "frozenset"])
def test_a_list_gives_its_items_to_one_set_only(tmp_path, kind):
    """Each set copies a list's items: a few bytes must not repeat that again and again."""
    items = b"](" + b"".join(number(index) for index in range(1000)) + b"eq\0"
    again = f"cbuiltins\n{kind}\n".encode() + b"h\0\x85R"
    read = read_pickle(write(tmp_path, by_hand(b"(", items, again, again, b"t")))
    assert [len(value) for value in read] == [0, 1000, 0]


def test_a_text_is_not_encoded_before_its_array_is_read(tmp_path):
    """Protocol 2 writes bytes as text, which stays in memory: both forms would double it."""
    text = pickle.BINUNICODE + struct.pack("<I", 2**20) + bytes(2**20)
    again = b"c_codecs\nencode\nh\0" + pickle.SHORT_BINUNICODE + b"\x06latin1\x86R"
    location = write(tmp_path, by_hand(b"(", text, b"q\0", again * 100, b"t"))
    tracemalloc.start()
    try:
        read_pickle(location)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_opcodes_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_MAX_OPCODES", 1000)
    with pytest.raises(InputError, match="more than 1,000 opcodes"):
        read_pickle(write(tmp_path, by_hand(b"]" * 1000)))


def test_deep_nesting_and_colliding_keys_are_bounded(tmp_path):
    deep = read_pickle(write(tmp_path, by_hand(b"]" * 100_000, b"a" * 99_999)))
    assert isinstance(deep, list)
    with pytest.raises(InputError, match="a key"):
        read_pickle(write(tmp_path, by_hand(b"}(", b")" + b"\x85" * 100_000, b"Nu")))
    colliding = b"".join(pickle.dumps(number * (2**61 - 1), 2)[2:-1] for number in range(1, 9))
    with pytest.raises(InputError, match="a key"):
        read_pickle(write(tmp_path, by_hand(b"}(", colliding, b"u")))


def test_every_cut_is_refused(tmp_path):
    for protocol in (2, 4):
        data = pickle.dumps([make_values()["small"], "text", {"a": 1}], protocol)
        for size in range(len(data)):
            with pytest.raises(InputError):
                read_pickle(write(tmp_path, data[:size]))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_damage_is_refused_or_harmless(tmp_path, protocol):
    whole = pickle.dumps([make_values(), "end"], protocol)
    rng = random.Random(protocol)
    started = time.process_time()  # other programs do not count
    num_refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.choice([rng.randrange(len(data)), rng.randrange(400)])] = rng.randrange(256)
        location = write(tmp_path, bytes(data))
        try:
            load(read_pickle(location))
        except (InputError, PickleError):
            num_refused += 1
    assert num_refused < 200
    assert time.process_time() - started < 60


def test_a_file_that_is_not_a_pickle_is_refused(tmp_path):
    for data in (b"", b"\x80", b"\x80\x04", b"hello", b"\x80\x06.", b"(lp0\n.", b"\x80\x02}(."):
        with pytest.raises(InputError, match="cannot be used"):
            read_pickle(write(tmp_path, data))
