"""Small .zip files written field by field, valid or with false fields, as hypothesis draws them."""

import lzma
import random
import struct
import zlib
from dataclasses import dataclass, field
from functools import cache

from hypothesis import strategies as st

from .skeleton_files import CHANGES, DRAW, IDS, make_file

LOCAL = "<4s5H3L2H"
CENTRAL = "<4s6H3L5H2L"
END = "<4s4H2LH"
END64, LOCATOR64 = "<4sQ2H2L4Q", "<4sLQL"
# Indices of some header fields, counted without the signature.
LOCAL_CRC, CENTRAL_METHOD, CENTRAL_CRC, CENTRAL_PACKED, CENTRAL_SIZE = 6, 4, 7, 8, 9
MAX32, MAX64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
LIES = [
    0,
    1,
    2,
    8,
    9,
    12,
    14,
    27,
    0xFFFF,
    MAX32,
    0x7FFF_FFFF,
    60 << 20,
    70 << 20,
    1 << 32,
    1 << 63,
    MAX64,
]
FOLDERS = ["", "", "", "a/b/", "./", "nturgb+d_skeletons/", "é/"]
AWAY = ["../", "/etc/", "a/../../", "..\\..\\"]
OTHERS = [
    "notes.txt",
    "a/",
    "._S001C001P001R001A001.skeleton",
    "__MACOSX/._x.skeleton",
    ".skeleton",
    "",
]


@dataclass
class Member:
    """One entry; `local` and `central` replace fields of its headers, by index."""

    name: bytes
    text: bytes
    method: int = 8
    flags: int = 0
    extra: bytes = b""
    packed: bytes | None = None
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)


@dataclass
class ZipFile:
    """A .zip as bytes, the texts in it by name in their order, and whether it is valid."""

    data: bytes
    texts: list
    is_sound: bool


def zips():
    """The arguments of make_zip: a valid file, false fields, changed bytes, or both."""
    byte_change = st.tuples(st.integers(0, 4), st.integers(0, 1 << 24), DRAW)
    return st.tuples(
        st.integers(0, 1 << 24),
        st.sampled_from([0, 0, 1, 1, 2, 3]),
        st.one_of(st.just([]), st.just([]), st.lists(byte_change, min_size=1, max_size=3)),
    )


def make_zip(seed, num_lies, byte_changes):
    rng = random.Random(seed)
    members = [make_member(rng) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.2:
        members.append(Member(members[0].name, make_text(rng), flags=members[0].flags))
    texts = [(member.name.decode(), member.text) for member in members]
    ends = {}
    for _ in range(num_lies):
        rng.choice(LIARS)(rng, rng.choice(members), ends)
    data = write_zip(members, ends, is_64=rng.random() < 0.2, comment=bytes(rng.choice([0, 0, 9])))
    data = rng.choice([b"", b"", b"", b"#!/bin/sh\n"]) + data
    for kind, where, what in byte_changes:
        data = change_bytes(data, kind, where, what)
    return ZipFile(data, texts, not num_lies and not byte_changes)


def make_member(rng):
    name = f"S{rng.randint(1, 3):03}C001P001R001A{rng.choice([1, 2, 3, 4, 60, 60, 61]):03}.skeleton"
    name = rng.choice(FOLDERS if rng.random() < 0.8 else AWAY) + name
    if rng.random() < 0.1:
        name = rng.choice(OTHERS)
    return Member(
        name=name.encode(),
        text=b"" if name.endswith("/") else make_text(rng),
        method=rng.choice([0, 8]),
        flags=0 if name.isascii() else 0x800,
        extra=rng.choice([b"", b"", b"UT\x05\0\x03\0\0\0\0"]),
    )


def make_text(rng):
    """Mostly one body: of several, only those of more than 11 frames are kept."""
    ids, frames = rng.choice([(IDS[:1], (1, 3)), (IDS[:1], (2, 3)), (IDS[:2], (12, 24))])
    data = make_file(rng.randrange(65536), ids=ids, frames=frames)
    if rng.random() < 0.2:
        data = rng.choice(CHANGES)(data, rng.randrange(65536), rng.randrange(65536))
    return data


def write_zip(members, ends, *, is_64, comment):
    body, directory = b"", b""
    for member in members:
        offset = len(body)
        packed = pack(member.text, member.method) if member.packed is None else member.packed
        sizes = [zlib.crc32(member.text), len(packed), len(member.text)]
        fields = [
            20,
            member.flags,
            member.method,
            0,
            33,
            *sizes,
            len(member.name),
            len(member.extra),
        ]
        body += fill(LOCAL, b"PK\3\4", fields, member.local) + member.name + member.extra + packed
        fields = [20, *fields, 0, 0, 0, 0, offset]
        directory += fill(CENTRAL, b"PK\1\2", fields, member.central) + member.name + member.extra
    start, count = len(body), len(members)
    data = body + directory
    if is_64:
        fields = [44, 45, 45, 0, 0, count, count, len(directory), start]
        data += fill(END64, b"PK\6\6", fields, ends.get(64, {}))
        data += fill(LOCATOR64, b"PK\6\7", [0, start + len(directory), 1], ends.get(63, {}))
    fields = [0, 0, count, count, len(directory), start, len(comment)]
    return data + fill(END, b"PK\5\6", fields, ends.get(32, {})) + comment


def fill(layout, signature, fields, lies):
    """Pack a header with `lies` in place of true numbers, each cut to the width of its field."""
    widths = [struct.calcsize(f"<{code}") for code in expand(layout)]
    values = [lies.get(index, value) for index, value in enumerate(fields)]
    fitting = [value & ((1 << 8 * width) - 1) for value, width in zip(values, widths, strict=True)]
    return struct.pack(layout, signature, *fitting)


def expand(layout):
    """Give each number's code, "<4s2HL" being H, H and L."""
    codes, times = [], ""
    for char in layout[3:]:
        if char.isdigit():
            times += char
        else:
            codes += [char] * int(times or 1)
            times = ""
    return codes


def pack(text, method):
    if method == 0:
        return text
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text) + packer.flush()


def lie_in_header(rng, member, ends):
    lies, size = (member.local, 10) if rng.random() < 0.4 else (member.central, 16)
    index = rng.randrange(size)
    lies[index] = rng.choice([*LIES, rng.randrange(1 << 16), rng.randrange(1 << 32)])


def lie_of_zip64(rng, member, ends):
    """Refer the reader to an extra field for the sizes and the offset, with false values."""
    numbers = [rng.choice([*LIES, len(member.text)]) for _ in range(rng.choice([1, 2, 3]))]
    member.extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)
    for index in (CENTRAL_SIZE, CENTRAL_PACKED, 15):
        if rng.random() < 0.6:
            member.central[index] = MAX32


def lie_of_packing(rng, member, ends):
    """Pack more than is declared, or by another method, whose own header may be false too."""
    member.method = rng.choice([8, 8, 12, 14, 14, 14])
    member.packed = {8: pack_zeros, 12: lambda: b"BZh91AY&SY" + bytes(9), 14: pack_lzma}[
        member.method
    ]()
    member.central[CENTRAL_SIZE] = rng.choice([len(member.text), 1000, 1000, 15 << 20, 63 << 20])
    member.central[CENTRAL_PACKED] = rng.choice([len(member.packed), 1 << 20, 60 << 20])


@cache
def pack_zeros():
    return pack(bytes(100 << 20), 8)


def pack_lzma():
    """Declare a dictionary of 4 GiB, which a careless reader allocates."""
    options = [{"id": lzma.FILTER_LZMA1, "dict_size": 4096}]
    text = lzma.compress(b"1\n", lzma.FORMAT_RAW, filters=options)
    return struct.pack("<BBHBL", 9, 4, 5, 0x5D, 0xF000_0000) + text


def lie_at_end(rng, member, ends):
    which, size = rng.choice([(32, 7), (63, 3), (64, 9)])
    ends.setdefault(which, {})[rng.randrange(size)] = rng.choice([*LIES, rng.randrange(1 << 16)])


LIARS = [
    *(lie_in_header, lie_in_header, lie_of_zip64, lie_of_packing, lie_of_packing, lie_at_end),
]


def change_bytes(data, kind, where, what):
    place = where % max(1, len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([what % 256]) + data[place:]
    if kind == 2:
        return data[:place] + data[place + 1 + what % 8 :]
    if kind == 3:  # where the directory is
        place = max(0, len(data) - 1 - where % 256)
    return data[:place] + bytes([what % 256]) + data[place + 1 :]
