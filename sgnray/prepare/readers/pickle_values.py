"""What a pickle of numpy's arrays is made of beside plain containers: types, scalars, arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_CODE = re.compile(r"[biufcSU]\d{1,6}", re.ASCII)
_MAX_AXES = 32
_MAX_KEY = 2**60
_TRANSPOSED = 5  # arguments of _frombuffer where the axes were swapped


class PickleError(Exception):
    """Why a pickle is refused."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that stay in the file; `is_text`: as UTF-8 of latin-1, which protocol 2 writes."""

    offset: int
    num_bytes: int
    is_text: bool


@dataclass(slots=True)
class ArraySpan:
    """An array whose bytes stay in the file, or are at hand if they are few.

    `order` is C or F; `axes` are swapped after that, if there are any.
    """

    data: Span | bytes = b""
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
        """The shape once the axes are swapped."""
        return self.shape if self.axes is None else tuple(self.shape[axis] for axis in self.axes)

    def load(self, stream: pa.NativeFile) -> npt.NDArray[Any]:
        """Read the array; PickleError if the file holds something else by now."""
        data = self.data if isinstance(self.data, bytes) else _read_span(stream, self.data)
        if len(data) != self.num_bytes:
            raise PickleError("an array's bytes are damaged")
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)
        return array if self.axes is None else array.transpose(self.axes)


@dataclass(slots=True)
class _Type:
    """A numpy.dtype under way; its byte order comes after it."""

    code: str
    order: str = "="

    @property
    def name(self) -> str:
        return self.order + self.code


@dataclass(frozen=True, slots=True)
class Global:
    """A name that pickles of arrays refer to, and what stands for calling it."""

    name: str
    call: Callable[[tuple[Any, ...]], Any] | None


def find_global(module: object, name: object) -> Global:
    """Give what stands for a global; PickleError for all but a few of numpy's."""
    found = _GLOBALS.get(f"{module} {name}")
    if found is None:
        shown = f"{module}.{name}"[:80]
        raise PickleError(f"it asks for {shown}, which is no array and could run code")
    return found


def call_global(function: object, arguments: object) -> Any:
    """Do what a call would; nothing of the pickle's choice is run."""
    if not isinstance(function, Global) or function.call is None:
        raise PickleError("it calls something that is no function")
    if not isinstance(arguments, tuple):
        raise PickleError(f"it calls {function.name} wrongly")
    return function.call(arguments)


def build(target: object, state: object) -> None:
    """Complete a type or an array with its state."""
    match target, state:
        case _Type(), (_, str(order), None, None, None, int(), int(), int(), *_):
            target.order = order
            _dtype_of(target)
        case ArraySpan(), (int(), tuple(shape), _Type() as kind, bool(in_columns), data):
            order = "F" if in_columns else "C"
            complete = _make_array(data, kind, shape, order, axes=None)
            target.data, target.dtype = complete.data, complete.dtype
            target.shape, target.order = complete.shape, complete.order
        case ArraySpan(), _:
            raise PickleError("it holds an array of Python objects")
        case _:
            raise PickleError("it sets the state of something that is no array")


def check_keys(keys: list[Any]) -> frozenset[Any]:
    """Only text and small numbers are hashed: others could collide, or exhaust the stack."""
    for key in keys:
        is_small = isinstance(key, int) and abs(key) < _MAX_KEY
        if not (is_small or key is None or isinstance(key, str)):
            raise PickleError("a key is neither text nor a small number")
    return frozenset(keys)


def _make_array(data: Any, kind: Any, shape: Any, order: Any, axes: Any) -> ArraySpan:
    if not isinstance(data, bytes | Span) or not isinstance(kind, _Type):
        raise PickleError("it holds an array of Python objects")
    if not _are_sizes(shape) or order not in ("C", "F") or not _are_axes(axes, shape):
        raise PickleError("it holds an array without a proper shape")
    array = ArraySpan(data, _dtype_of(kind).str, shape, order, axes)
    held = len(data) if isinstance(data, bytes) else data.num_bytes
    most = 2 * array.num_bytes if isinstance(data, Span) and data.is_text else array.num_bytes
    if not array.num_bytes <= held <= most:
        raise PickleError(f"it holds an array of shape {shape} in {held} bytes")
    return array


def _are_sizes(shape: Any) -> bool:
    if not isinstance(shape, tuple) or len(shape) > _MAX_AXES:
        return False
    return all(type(size) is int and 0 <= size < 2**40 for size in shape)


def _are_axes(axes: Any, shape: Any) -> bool:
    return axes is None or (
        isinstance(axes, tuple)
        and all(type(axis) is int for axis in axes)
        and sorted(axes) == list(range(len(shape)))
    )


def _dtype_of(kind: _Type) -> np.dtype[Any]:
    if kind.code.startswith("O"):
        raise PickleError("it holds an array of Python objects")
    if _CODE.fullmatch(kind.code) is None or kind.order not in ("<", ">", "|", "="):
        raise PickleError(f"it holds numbers of the type {kind.name[:40]!r}")
    try:
        return np.dtype(kind.name)
    except TypeError as error:
        raise PickleError(f"it holds numbers of the type {kind.name[:40]!r}") from error


def _new_type(arguments: tuple[Any, ...]) -> _Type:
    match arguments:
        case (str(code), *_):
            kind = _Type(code)
            _dtype_of(kind)
            return kind
    raise PickleError("it holds numbers of an unusual type")


def _new_array(arguments: tuple[Any, ...]) -> ArraySpan:
    match arguments:
        case (Global(name="numpy.ndarray"), (0,), _):
            return ArraySpan()
    raise PickleError("it holds an array of an unusual kind")


def _new_array_of_buffer(arguments: tuple[Any, ...]) -> ArraySpan:
    if len(arguments) == _TRANSPOSED and arguments[3] == "K" and arguments[4] is not None:
        data, kind, shape, _, axes = arguments
        return _make_array(data, kind, shape, "C", axes)
    if len(arguments) in (4, _TRANSPOSED):
        data, kind, shape, order = arguments[:4]
        return _make_array(data, kind, shape, order, axes=None)
    raise PickleError("it holds an array of an unusual kind")


def _new_scalar(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (_Type() as kind, bytes(data)) if len(data) == _dtype_of(kind).itemsize > 0:
            return np.frombuffer(data, _dtype_of(kind))[0].item()
    raise PickleError("it holds a number of an unusual type")


def _encode(arguments: tuple[Any, ...]) -> Span | bytes:
    match arguments:
        case (Span(is_text=True) as span, "latin1" | "latin-1"):
            return span
        case (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise PickleError("it encodes something that is no text")


def _new_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise PickleError("it makes bytes of something else")
    return b""


def _new_set(arguments: tuple[Any, ...]) -> set[Any]:
    match arguments:
        case (list(values),):
            return set(check_keys(values))
    raise PickleError("it makes a set of something else")


def _read_span(stream: pa.NativeFile, span: Span) -> bytes:
    stream.seek(span.offset)
    data: bytes = stream.read(span.num_bytes)
    if not span.is_text:
        return data
    try:
        return data.decode("utf-8").encode("latin-1")
    except UnicodeError as error:
        raise PickleError("an array's bytes are damaged") from error


_GLOBALS = {
    f"{module} {name}": Global(f"{module}.{name}", call)
    for modules, name, call in (
        (("numpy",), "ndarray", None),
        (("numpy",), "dtype", _new_type),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _new_array),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _new_scalar),
        (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _new_array_of_buffer),
        (("_codecs",), "encode", _encode),
        (("builtins", "__builtin__"), "bytes", _new_bytes),
        (("builtins", "__builtin__"), "set", _new_set),
        (("builtins", "__builtin__"), "frozenset", lambda items: frozenset(_new_set(items))),
    )
    for module in modules
}
