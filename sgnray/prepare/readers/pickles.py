"""Reader of pickles that runs nothing: plain containers and numpy's arrays, which stay on disk.

The opcodes come from pickletools.genops, which executes none of them. A small stack machine
builds lists, dicts, tuples, sets, numbers and text of them; of an array it keeps only where in the
file its bytes lie. Whatever else a pickle asks for is refused, and named.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from sgnray.errors import InputError
from sgnray.prepare.readers.pickle_values import (
    ArraySpan,
    PickleError,
    Span,
    build,
    call_global,
    check_keys,
    find_global,
)
from sgnray.storage.location import Location

PICKLE_MAGIC = b"\x80"
PROTOCOLS = range(2, 6)
# NTU120's 114,000 clips make about 8 million.
_MAX_OPCODES = 40_000_000
_MAX_VALUE_BYTES = 256 * 2**20
_MAX_LINE_BYTES = 1024
_SHORT_BYTES = 256  # anything longer stays in the file
_MARK = object()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
# The size of an opcode and of the length that follows it.
_TEXTS = {"SHORT_BINUNICODE": 2, "BINUNICODE": 5, "BINUNICODE8": 9}
_BYTES = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}


def read_pickle(location: Location) -> Any:
    """Read a pickle of protocols 2 to 5; its arrays are ArraySpans, its long texts are Spans.

    InputError if it is torn, or holds anything but plain containers and numpy's arrays.
    """
    try:
        with location.open() as stream:
            return _Machine(_Bounded(stream)).run()
    except PickleError as error:
        raise refuse_pickle(location, str(error)) from error
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise refuse_pickle(location, f"it is torn ({said[:200]})") from error


def refuse_pickle(location: Location, reason: str) -> InputError:
    """Build the InputError for a pickle that cannot be used."""
    return InputError(
        f"the pickle cannot be used: {reason}",
        where=str(location),
        now="fetch the file again from its publisher",
    )


class _Bounded(io.BufferedReader):
    """A file that allocates nothing for a length that is only claimed."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__(stream, buffer_size=2**20)
        self._size = stream.size()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size > _SHORT_BYTES:
            left = self._size - self.tell()
            if size is None or size > left:
                raise PickleError(f"it is cut off: {size} bytes announced, {left} left")
            if size > _MAX_VALUE_BYTES:
                raise PickleError(f"it holds one value of {size:,} bytes")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_MAX_LINE_BYTES)


class _Machine:
    """The stack, the memo, and what each opcode does to them."""

    def __init__(self, file: _Bounded) -> None:
        self._file = file
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._start = 0  # of the opcode at hand
        self._actions: dict[str, Callable[[Any], object]] = {
            "PROTO": self._check_protocol,
            "FRAME": lambda _: None,
            **{name: self._push_constant(value) for name, value in _CONSTANTS.items()},
            **dict.fromkeys(_NUMBERS, self._stack.append),
            **{name: self._push_text(size) for name, size in _TEXTS.items()},
            **{name: self._push_bytes(size) for name, size in _BYTES.items()},
            **{name: self._push_new(kind) for name, kind in _EMPTY.items()},
            "MARK": lambda _: self._stack.append(_MARK),
            "POP": lambda _: self._stack.pop(),
            "POP_MARK": lambda _: self._pop_to_mark(),
            "DUP": lambda _: self._stack.append(self._stack[-1]),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), self._get),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._put),
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            **{f"TUPLE{size}": self._make_tuple(size) for size in (1, 2, 3)},
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_to_mark())),
            "LIST": lambda _: self._stack.append(self._pop_to_mark()),
            "DICT": lambda _: self._make_dict(),
            "FROZENSET": lambda _: self._stack.append(check_keys(self._pop_to_mark())),
            "APPEND": lambda _: self._append([self._pop()]),
            "APPENDS": lambda _: self._append(self._pop_to_mark()),
            "SETITEM": lambda _: self._set_items([self._pop(), self._pop()][::-1]),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "ADDITEMS": lambda _: self._add_items(self._pop_to_mark()),
            "GLOBAL": lambda name: self._stack.append(find_global(*name.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self._find_global(),
            "REDUCE": lambda _: self._reduce(),
            "BUILD": lambda _: self._build(),
        }

    def run(self) -> Any:
        """Read to the STOP opcode; raises PickleError, or what genops raises over torn ones."""
        for count, (opcode, argument, start) in enumerate(pickletools.genops(self._file)):
            if count == 0 and opcode.name != "PROTO":
                raise PickleError("it does not begin with its protocol")
            if opcode.name == "STOP":
                break
            if opcode.name not in self._actions:
                raise PickleError(f"it asks for {opcode.name}, which is too old or could run code")
            if count >= _MAX_OPCODES:
                raise PickleError(f"it has more than {_MAX_OPCODES:,} opcodes")
            self._start = start or 0
            self._actions[opcode.name](argument)
        result = self._pop()
        if self._stack:
            raise PickleError("it ends in the middle of a value")
        return result

    def _check_protocol(self, protocol: int) -> None:
        if protocol not in PROTOCOLS:
            raise PickleError(f"it has protocol {protocol}, not 2 to 5")

    def _push_constant(self, value: object) -> Callable[[Any], None]:
        return lambda _: self._stack.append(value)

    def _push_new(self, kind: Callable[[], Any]) -> Callable[[Any], None]:
        return lambda _: self._stack.append(kind())

    def _push_text(self, header_size: int) -> Callable[[str], None]:
        def push(text: str) -> None:
            is_short = len(text) <= _SHORT_BYTES
            self._stack.append(text if is_short else self._span(header_size, is_text=True))

        return push

    def _push_bytes(self, header_size: int) -> Callable[[bytes], None]:
        def push(data: bytes) -> None:
            is_short = len(data) <= _SHORT_BYTES
            self._stack.append(bytes(data) if is_short else self._span(header_size, is_text=False))

        return push

    def _span(self, header_size: int, *, is_text: bool) -> Span:
        offset = self._start + header_size
        return Span(offset, self._file.tell() - offset, is_text)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleError("a value is missing")
        return value

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        values.reverse()
        return values

    def _make_tuple(self, size: int) -> Callable[[Any], None]:
        def push(_: object) -> None:
            self._stack.append(tuple([self._pop() for _ in range(size)][::-1]))

        return push

    def _make_dict(self) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items(items)

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        if self._stack[-1] is _MARK:
            raise PickleError("a value is missing")
        self._memo[index] = self._stack[-1]

    def _append(self, values: list[Any]) -> None:
        self._target(list).extend(values)

    def _set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        check_keys(keys)
        self._target(dict).update(zip(keys, values, strict=True))

    def _add_items(self, values: list[Any]) -> None:
        self._target(set).update(check_keys(values))

    def _target(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise PickleError(f"it fills something that is no {kind.__name__}")
        return self._stack[-1]

    def _find_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(find_global(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(call_global(function, arguments))

    def _build(self) -> None:
        state = self._pop()
        build(self._stack[-1], state)


__all__ = ["PICKLE_MAGIC", "ArraySpan", "PickleError", "Span", "read_pickle", "refuse_pickle"]
