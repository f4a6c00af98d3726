"""Objects: values for which there is no column of their own, as JSON that gives them back exactly. Pure.

A *line* holds a list of values: plain, `["on", [1, 2]]`, where JSON and its parsers keep them as they are, else
wrapped, `{"w": [...]}`. JSON itself cannot carry NaN, infinities, bytes, integers beyond 64 bits, broken text, or keys
that are not text; in a wrapped list such values stand as objects with one key: `f` a float's eight bytes in hex, big
endian, `b` bytes in base64, `i` an integer in hex, `s` UTF-8 with surrogates in hex, `o` an object as a list of pairs.
No object stands there for itself, so nothing is taken for what it is not.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

_DEEPEST = 100  # levels of lists and objects within one value; JSON parsers give up soon after
_DOUBLE = struct.Struct(">d")


def line(values: Sequence[Any]) -> bytes:
    """The values in one line of JSON. Takes anything: what no driver may hand over is kept as its text.

    orjson refuses what JSON cannot carry, with one exception: it writes null for NaN and infinities. So every null that
    is not a None of ours gives them away.
    """
    try:
        written = orjson.dumps(values)
    except TypeError:
        return _wrapped(values)
    if b"null" in written and written.count(b"null") != values.count(None):
        return _wrapped(values)
    return written


def _wrapped(values: Sequence[Any]) -> bytes:
    return orjson.dumps({"w": [_wrap(value, 1) for value in values]})


def values_of(written: bytes) -> list[Any]:
    """The values of a line. Raises ValueError, KeyError, TypeError or RecursionError on what `line` did not write."""
    found = orjson.loads(written)
    if isinstance(found, list):
        return found
    return [unwrap(value) for value in found["w"]]


def _wrap(value: Any, depth: int) -> Any:
    """A value in terms that JSON can carry."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else {"i": f"{value:x}"}
    if isinstance(value, float):
        is_finite = value - value == 0
        return float(value) if is_finite else {"f": _DOUBLE.pack(value).hex()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b": b2a_base64(value, newline=False).decode()}
    if depth < _DEEPEST:
        if isinstance(value, list | tuple):
            return [_wrap(v, depth + 1) for v in value]
        if isinstance(value, dict):
            return {"o": [[_wrap(k, depth + 1), _wrap(v, depth + 2)] for k, v in value.items()]}
    text = str(value) if isinstance(value, str) or depth < _DEEPEST else "nested too deep"
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"s": text.encode("utf-8", "surrogatepass").hex()}
    return text


def unwrap(value: Any) -> Any:
    """A value out of a wrapped list. Raises as `values_of` does."""
    if isinstance(value, list):
        return [unwrap(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    return _UNWRAP[key](inner)


_UNWRAP: Mapping[str, Callable[[Any], Any]] = {
    "i": lambda inner: int(inner, 16),
    "f": lambda inner: _DOUBLE.unpack(bytes.fromhex(inner))[0],
    "b": a2b_base64,
    "s": lambda inner: bytes.fromhex(inner).decode("utf-8", "surrogatepass"),
    "o": lambda inner: {unwrap(k): unwrap(v) for k, v in inner},
}
