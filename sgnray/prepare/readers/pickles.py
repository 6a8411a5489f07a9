"""Reader of pickles that runs no code: plain containers, numbers, text and numpy's arrays.

Python's own unpickler reads them, without the opcodes that could run code. The few functions that
pickles of arrays call are replaced by functions of this module, which check their arguments;
anything else a pickle asks for is refused by name.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.errors import InputError, first_line
from sgnray.prepare.clip import refusal
from sgnray.storage.location import Location

_PROTOCOLS = range(2, 6)
# NTU120's 114,000 clips make about 8 million.
_MAX_OPCODES = 40_000_000
_MAX_VALUE_BYTES = 256 * 2**20
_MAX_LINE_BYTES = 1024
_MAX_SCALAR_BYTES = 256
_MAX_AXES = 32
_MAX_KEY = 2**60
_CODE = re.compile(r"[biufcSU]\d{1,6}", re.ASCII)
_OPCODES = (
    "PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT "
    "SHORT_BINSTRING BINSTRING SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 "
    "MARK BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST EMPTY_DICT EMPTY_SET EMPTY_TUPLE APPEND APPENDS "
    "SETITEM SETITEMS ADDITEMS FROZENSET GLOBAL STACK_GLOBAL REDUCE BUILD"
)

Action = Callable[[Any], None]


class PickleError(Exception):
    """Why a pickle is refused."""


def is_pickle(head: bytes) -> bool:
    """Return whether a file begins like a pickle of a protocol that is read."""
    return head[:1] == pickle.PROTO and len(head) > 1 and head[1] in _PROTOCOLS


def read_pickle(location: Location) -> Any:
    """Read a pickle of protocols 2 to 5, with a PickledArray for each of numpy's arrays.

    InputError if it is corrupt, or holds anything but plain containers and numpy's arrays.
    """
    try:
        with location.open() as stream:
            return load_pickle(stream)
    except (PickleError, OSError) as error:
        raise refuse_pickle(location, str(error)) from error


def load_pickle(stream: pa.NativeFile) -> Any:
    """Read a pickle as read_pickle does; PickleError says what is wrong with it."""
    try:
        return _Unpickler(_BoundedFile(stream)).load()
    except (
        *(OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
        *(EOFError, MemoryError, pickle.UnpicklingError),
    ) as error:
        raise PickleError(f"it is corrupt ({first_line(error)[:200]})") from error


def refuse_pickle(location: Location, reason: str) -> InputError:
    """Build the InputError for a pickle that cannot be used."""
    return InputError(
        f"the pickle cannot be used: {reason}",
        where=str(location),
        now="download the file again from its publisher, or write it again with Python 3",
    )


@dataclass(frozen=True, slots=True)
class _Latin1:
    """Bytes as text of protocol 2, encoded only when needed, so that memory holds one form."""

    text: str

    def __len__(self) -> int:
        return len(self.text)


@dataclass(slots=True)
class PickledArray:
    """An array as its pickle describes it; `axes` are permuted last, if there are any."""

    data: bytes | _Latin1 = b""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    order: Literal["C", "F"] = "C"
    axes: tuple[int, ...] | None = None

    @property
    def num_bytes(self) -> int:
        """Size of its numbers."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def final_shape(self) -> tuple[int, ...]:
        """The shape once the axes are permuted."""
        return self.shape if self.axes is None else tuple(self.shape[axis] for axis in self.axes)

    def load(self) -> npt.NDArray[Any]:
        """Build the array; ClipError if its bytes are damaged."""
        try:
            data = self.data.text.encode("latin-1") if isinstance(self.data, _Latin1) else self.data
        except UnicodeEncodeError as error:
            raise refusal("an array's bytes are damaged") from error
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)
        return array if self.axes is None else array.transpose(self.axes)

    def complete(self, data: Any, kind: Any, shape: Any, order: Any, axes: Any) -> None:
        """Set the content of the array; PickleError if its parts do not fit together."""
        if not isinstance(data, bytes | _Latin1) or not isinstance(kind, _Type):
            raise PickleError("it contains an array of Python objects")
        if not _are_sizes(shape) or order not in ("C", "F") or not _are_axes(axes, shape):
            raise PickleError("it contains an array without a proper shape")
        self.data, self.dtype, self.shape = data, kind.check().str, shape
        self.order, self.axes = order, axes
        if len(data) != self.num_bytes:
            raise PickleError(f"it contains an array of shape {shape} in {len(data)} bytes")


class _BoundedFile:
    """A file that allocates nothing for a declared length that it does not have."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._file = io.BufferedReader(stream, buffer_size=2**20)
        self._num_left: int = stream.size()
        if self._num_left < 2 or (head := self._file.peek(2))[:1] != pickle.PROTO:
            raise PickleError("it does not begin with its protocol, as those of 0 and 1 (Python 2)")
        if head[1] not in _PROTOCOLS:
            raise PickleError(f"it has protocol {head[1]}, not 2 to 5")

    def read(self, size: int) -> bytes:
        if size > self._num_left:
            raise PickleError(f"it is cut off: {size} bytes declared, {self._num_left} left")
        if size > _MAX_VALUE_BYTES:
            raise PickleError(f"it contains one value of {size:,} bytes")
        self._num_left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_LINE_BYTES)
        self._num_left -= len(line)
        return line


class _Dispatch(dict[int, Action]):
    """The action of each allowed opcode; other opcodes are refused, and so are too many."""

    def __init__(self, actions: dict[int, Action]) -> None:
        super().__init__(actions)
        self._num_left = _MAX_OPCODES

    def __getitem__(self, code: int) -> Action:
        self._num_left -= 1
        if self._num_left < 0:
            raise PickleError(f"it has more than {_MAX_OPCODES:,} opcodes")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Action:
        names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
        name = names.get(code, f"the opcode {code}")
        raise PickleError(f"it uses {name}, which is too old or could run code")


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python, because the one in C allocates any length that a pickle declares.

    Keys are checked before they are hashed, and only objects of this module are called or changed.
    """

    stack: list[Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: _BoundedFile) -> None:
        super().__init__(file, encoding="latin-1")  # of Python 2's text
        own = {
            "BYTEARRAY8": _Unpickler._push_bytes,
            "FROZENSET": _Unpickler._push_frozenset,
            "ADDITEMS": _Unpickler._add_items,
            "SETITEM": _Unpickler._set_item,
            "SETITEMS": _Unpickler._set_items,
            "REDUCE": _Unpickler._call,
            "BUILD": _Unpickler._build,
        }
        codes = {name: getattr(pickle, name)[0] for name in _OPCODES.split()}
        actions = {code: own.get(name, self.dispatch[code]) for name, code in codes.items()}
        self.dispatch = _Dispatch(actions)  # type: ignore[misc]  # counted for each pickle

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        function = _FUNCTIONS.get(f"{module}.{name}")
        if function is None:
            shown = re.sub(r"[^ -~]", "?", f"{module}.{name}"[:80])
            raise PickleError(f"it uses {shown}, which is not an array and could run code")
        return function

    def _push_bytes(self) -> None:
        self.stack.append(self.read(int.from_bytes(self.read(8), "little")))

    def _push_frozenset(self) -> None:
        items = _check_keys(self.pop_mark())  # pop_mark replaces the stack
        self.stack.append(frozenset(items))

    def _add_items(self) -> None:
        items = _check_keys(self.pop_mark())
        self._target(set).update(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._target(dict).update(zip(_check_keys([key]), [value], strict=True))

    def _set_items(self) -> None:
        items = self.pop_mark()
        keys, values = _check_keys(items[::2]), items[1::2]
        self._target(dict).update(zip(keys, values, strict=True))

    def _target(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise PickleError(f"it fills something that is not a {kind.__name__}")
        return self.stack[-1]

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in _FUNCTIONS.values():
            raise PickleError("it calls something that is not a function")
        if not isinstance(arguments, tuple):
            raise PickleError(f"it calls {function.__name__.strip('_')} incorrectly")
        self.stack.append(function(*arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        match self.stack[-1], state:
            case _Type() as kind, (_, str(order), None, None, None, int(), int(), int(), *_):
                kind.order = order
                kind.check()
            case PickledArray() as array, (int(), shape, kind, bool(in_columns), data):
                array.complete(data, kind, shape, "F" if in_columns else "C", None)
            case PickledArray(), _:
                raise PickleError("it contains an array of an unusual kind")
            case _:
                raise PickleError("it sets the state of something that is not an array")


def _check_keys(keys: list[Any]) -> list[Any]:
    """Allow only text and small numbers: hashing others could collide, or exhaust the stack."""
    for key in keys:
        is_small = isinstance(key, int) and abs(key) < _MAX_KEY
        if not (is_small or key is None or isinstance(key, str)):
            raise PickleError("a key is neither text nor a small number")
    return keys


def _are_sizes(shape: Any) -> bool:
    if not isinstance(shape, tuple) or len(shape) > _MAX_AXES:
        return False
    return all(type(size) is int and 0 <= size < 2**40 for size in shape)


def _are_axes(axes: Any, shape: tuple[int, ...]) -> bool:
    return axes is None or (
        isinstance(axes, tuple)
        and all(type(axis) is int for axis in axes)
        and sorted(axes) == list(range(len(shape)))
    )


@dataclass(slots=True)
class _Type:
    """A numpy.dtype; a pickle sets its byte order afterwards."""

    code: str
    order: str = "="

    def check(self) -> np.dtype[Any]:
        """Return numpy's own type; PickleError if it is not one of plain numbers or text."""
        if self.code.startswith("O"):
            raise PickleError("it contains an array of Python objects")
        if _CODE.fullmatch(self.code) is None or self.order not in ("<", ">", "|", "="):
            raise PickleError(f"it contains numbers of the type {self.order + self.code[:40]!r}")
        try:
            return np.dtype(self.order + self.code)
        except TypeError as error:
            raise PickleError(f"it contains numbers of the type {self.code!r}") from error


def _dtype(code: object = None, *_: object) -> _Type:
    if not isinstance(code, str):
        raise PickleError("it contains numbers of an unusual type")
    kind = _Type(code)
    kind.check()
    return kind


def _ndarray(*_: object) -> None:
    raise PickleError("it calls something that is not a function")


def _reconstruct(kind: object = None, shape: object = None, *_: object) -> PickledArray:
    if kind is not _ndarray or shape != (0,):
        raise PickleError("it contains an array of an unusual kind")
    return PickledArray()


def _frombuffer(
    data: Any = None, kind: Any = None, shape: Any = None, order: Any = None, axes: Any = None
) -> PickledArray:
    array = PickledArray()
    if order == "K" and axes is not None:
        array.complete(data, kind, shape, "C", axes)
    else:
        array.complete(data, kind, shape, order, None)
    return array


def _scalar(kind: object = None, data: object = None) -> Any:
    if isinstance(kind, _Type) and isinstance(data, bytes):
        dtype = kind.check()
        if len(data) == dtype.itemsize and 0 < len(data) <= _MAX_SCALAR_BYTES:
            return np.frombuffer(data, dtype)[0].item()
    raise PickleError("it contains a number of an unusual type")


def _encode(text: object = None, encoding: object = None) -> bytes | _Latin1:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError("it encodes something that is not text")
    return text.encode("latin-1") if len(text) <= _MAX_SCALAR_BYTES else _Latin1(text)


def _bytes(*arguments: object) -> bytes:
    if arguments:
        raise PickleError("it makes bytes from something else")
    return b""


def _set(values: object = None) -> set[Any]:
    if not isinstance(values, list):
        raise PickleError("it makes a set from something else")
    made = set(_check_keys(values))
    values.clear()  # else a few bytes could build the same set again and again
    return made


def _frozenset(values: object = None) -> frozenset[Any]:
    return frozenset(_set(values))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _ndarray,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    # Before numpy 2 the module was numpy.core.
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
    # Protocol 2 uses Python 2's name of builtins.
    **{f"{builtins}.bytes": _bytes for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.set": _set for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.frozenset": _frozenset for builtins in ("builtins", "__builtin__")},
}
