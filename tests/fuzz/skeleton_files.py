"""Small .skeleton files, valid ones and broken ones, from a few integers that hypothesis draws."""

import random

from hypothesis import strategies as st

# Replacements for a coordinate, an id or a count.
TOKENS = [
    *b"""nan inf Infinity -nan(ind) 1e39 1e400 -1e-400 1e-46 3.4028235677973366e38
    3.4028235677973362e38 +1.0 ++1 1_0 0x1p3 1. .5 -.5 . e5 1e 1e+ 1E-05 --1 +-1 1d5 1.0f '1' "1"
    12345678901234567890.123456789 0.1000000000000000055511151231257827021181583404541015625 00001
    -0 1e0000000000000000000005 25 025 0 1 2 3 26 1,5 99999999999 999999999999 0000000000025
    100000000000000000000000 18446744073709551616 72057594037900001 072057594037900001 - + None
    1e-45 7.0064923216240854e-46 7.0064923216240853e-46 1.17549435e-38 16777217 1e22 1e23
    NULL null NaN true""".split(),
    b"",
    b" ",
    b"\t1",
    b"9" * 400,
    b"0." + b"3" * 900,
]
PIECES = [
    *(b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\x7f", b"\x1a", b"\v", b"\x1c", b'"', b"\\"),
    *(
        "\ufeff".encode(),
        "\u0661".encode(),
        "\u2212".encode(),
        b"\xa0",
        b"\x85",
        b"\xff",
        b"#",
        b",",
    ),
    *(b"\n\n", b" \n", b"\n \r\n\n", b"\n" * 300, b" " * 300, b"\r\r\n", b"0\n", b"25\n"),
]
IDS = [72057594037900001, 72057594037900002, 7, 0]
BODY_LINES = 27
DRAW = st.integers(0, 0xFFFF)


def skeletons():
    """The arguments of break_file: a valid file, and up to four changes."""
    change = st.tuples(st.integers(0, len(CHANGES) - 1), DRAW, DRAW)
    return st.tuples(DRAW, st.lists(change, max_size=4))


def break_file(seed, changes):
    data = make_file(seed)
    for kind, where, what in changes:
        data = CHANGES[kind](data, where, what)
    return data


def make_file(seed, *, ids=IDS, frames=(1, 3)):
    """A few frames of up to two bodies, in one of the styles that a valid file may have."""
    rng = random.Random(seed)
    style = rng.choice(["{:.8g}", "{:.8g}", "{:+.3f}", "{:e}", "{!r}", "{:.20f}", "{:.0f}"])
    ends = rng.choice(["\n", "\n", "\r\n", "mixed"])
    lines = [make_count(rng, num_frames := rng.randint(*frames))]
    for _ in range(num_frames):
        present = rng.sample(ids, min(len(ids), rng.choice([0, 1, 1, 2])))
        lines.append(make_count(rng, len(present)))
        for body_id in present:
            zeros = "0" * (rng.random() < 0.1)
            lines += [f"{zeros}{body_id} 0 1 1 0 2 0 -0.29 -0.5 2", make_count(rng, 25)]
            lines += [make_joint(rng, style) for _ in range(25)]
    chosen = ["\n", "\r\n"] if ends == "mixed" else [ends]
    text = "".join(line + rng.choice(chosen) for line in lines)
    return text.encode() + rng.choice([b"", b"", b"\n \r\n", b"   "])


def make_count(rng, number):
    """Write a number, sometimes with zeros or blanks around it, which do not change its value."""
    return rng.choice([*["{}"] * 17, "0{}", " {}", "{}  "]).format(number)


def make_joint(rng, style):
    scale = 10.0 ** rng.randint(-6, 2)
    return " ".join([*(style.format(rng.gauss(0, scale)) for _ in range(3)), *["0.5"] * 9])


def replace_byte(data, where, what):
    place = where % max(1, len(data))
    return data[:place] + odd_byte(what) + data[place + 1 :]


def insert_byte(data, where, what):
    place = where % max(1, len(data))
    return data[:place] + odd_byte(what) + data[place:]


def delete_bytes(data, where, what):
    place = where % max(1, len(data))
    return data[:place] + data[place + 1 + what % 3 :]


def cut_off(data, where, what):
    return data[: where % (len(data) + 1)]


def cut_near_the_end(data, where, what):
    return data[: max(0, len(data) - where % 8)]


def insert_piece(data, where, what):
    place = where % (len(data) + 1)
    return data[:place] + PIECES[what % len(PIECES)] + data[place:]


def insert_piece_at_an_edge(data, where, what):
    """Insert it where lines and files begin and end, which a uniform draw would rarely hit."""
    edges = [0, len(data), *(place for place, byte in enumerate(data) if byte in b"\r\n")]
    place = edges[where % len(edges)] + what // len(PIECES) % 2
    return data[:place] + PIECES[what % len(PIECES)] + data[place:]


def delete_line(data, where, what):
    lines = data.split(b"\n")
    del lines[where % len(lines)]
    return b"\n".join(lines)


def repeat_line(data, where, what):
    lines = data.split(b"\n")
    lines.insert(what % len(lines), lines[where % len(lines)])
    return b"\n".join(lines)


def swap_lines(data, where, what):
    lines = data.split(b"\n")
    one, other = where % len(lines), what % len(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def replace_token(data, where, what):
    lines = data.split(b"\n")
    return replace_column(lines, where % len(lines), what)


def replace_header(data, where, what):
    lines = data.split(b"\n")
    headers = find_headers(lines)
    return replace_column(lines, headers[where % len(headers)], what)


def move_count(data, where, what):
    """Declare one or a few more or fewer than there are."""
    lines = data.split(b"\n")
    counts = [index for index in find_headers(lines) if lines[index].strip().isdigit()] or [0]
    index = counts[where % len(counts)]
    number = lines[index].strip()
    if number.isdigit() and len(number) < 20:
        lines[index] = b"%d" % max(0, int(number) + (1, -1, 2, -2, 25)[what % 5])
    return b"\n".join(lines)


def drop_or_add_column(data, where, what):
    lines = data.split(b"\n")
    index = where % len(lines)
    columns = lines[index].split(b" ")
    place = what // 2 % len(columns)
    columns[place : place + what % 2] = [] if what % 2 else [b"0"]
    lines[index] = b" ".join(columns)
    return b"\n".join(lines)


def repeat_body(data, where, what):
    """Repeat a body under the same id, whether or not the count of bodies declares it."""
    lines = data.split(b"\n")
    starts = [index for index in range(len(lines) - 1) if lines[index + 1].strip() == b"25"] or [0]
    start = starts[where % len(starts)]
    num_more = (1, 1, 2, 40)[what % 4]
    lines[start:start] = lines[start : start + BODY_LINES] * num_more
    if what // 4 % 2 and lines[start - 1].strip().isdigit():
        lines[start - 1] = b"%d" % (int(lines[start - 1].strip()[:9]) + num_more)
    return b"\n".join(lines)


def repeat_file(data, where, what):
    return data * (2 + what % 3)


def change_line_end(data, where, what):
    lines = data.split(b"\n")
    index = where % len(lines)
    line = lines[index]
    lines[index] = line.removesuffix(b"\r") if line.endswith(b"\r") else line + b"\r"
    return b"\n".join(lines)


CHANGES = [
    *(replace_byte, insert_byte, delete_bytes, cut_off, cut_near_the_end, insert_piece),
    *(insert_piece_at_an_edge, delete_line, repeat_line, swap_lines, replace_token, replace_token),
    *(replace_header, move_count, drop_or_add_column, repeat_body, repeat_file, change_line_end),
    *(replace_token, replace_header, change_line_end),
]


def odd_byte(what):
    return bytes([(what >> 4) % 256 if what % 2 else b"\n\r .-+0123456789eE"[(what >> 4) % 18]])


def find_headers(lines):
    return [index for index, line in enumerate(lines) if line.count(b" ") != 11] or [0]


def replace_column(lines, index, what):
    columns = lines[index].split(b" ")
    columns[what % min(len(columns), 4)] = TOKENS[what // 4 % len(TOKENS)]
    lines[index] = b" ".join(columns)
    return b"\n".join(lines)
