"""A value that a person or a command gives, as the Variant that a node takes: the inverse of `variants`.

The node's data type decides, not the value: 5 goes to an Int16 as Int16 and to a Double as 5.0. What does not fit is
refused here, before anything is sent, for a server that cuts it off in silence is worse than one that says no.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf, isfinite
from typing import Any, Final
from uuid import UUID

from asyncua import ua as _ua

from drivers.opcua.address import NodeAddress, parse
from drivers.opcua.nodes.known import Known
from drivers.opcua.values.codes import NAMES
from gateway.model import Value

ua: Any = _ua  # its names are made at run time: no checker sees them

_INTEGERS: Final = {
    2: (-(2**7), 2**7 - 1), 3: (0, 2**8 - 1), 4: (-(2**15), 2**15 - 1), 5: (0, 2**16 - 1), 6: (-(2**31), 2**31 - 1),
    7: (0, 2**32 - 1), 8: (-(2**63), 2**63 - 1), 9: (0, 2**64 - 1),
}  # fmt: skip
_WORDS: Final = {
    0: "value", 1: "Boolean", 2: "SByte", 3: "Byte", 4: "Int16", 5: "UInt16", 6: "Int32", 7: "UInt32", 8: "Int64",
    9: "UInt64", 10: "Float", 11: "Double", 12: "String", 13: "DateTime", 14: "Guid", 15: "ByteString",
    16: "XmlElement", 17: "NodeId", 18: "ExpandedNodeId", 19: "StatusCode", 20: "QualifiedName", 21: "LocalizedText",
    22: "structure", 23: "DataValue", 24: "value", 25: "DiagnosticInfo",
}  # fmt: skip
_STRINGS: Final = {12, 15}
_ANY: Final = {0, 24}
_FIRST_YEAR: Final = 1601


def encode(value: Value, known: Known, index_range: str | None = None, namespaces: Sequence[str] = ()) -> Any:
    """What to write to a node. `index_range` is the part of an array that is written, `1:3` for example.

    Lists for arrays, lists of lists for matrices; text for times (ISO 8601), Guids, node ids, ByteStrings (hexadecimal)
    and names of an enumeration. A node of any type (BaseDataType, Number) takes what the value looks like: Boolean,
    Int32, Int64, Double, String. Raises ValueError with the cure.
    """
    if known.builtin not in _WORDS or known.builtin in {22, 23, 25}:
        what = _WORDS.get(known.builtin, "value of its type")
        raise ValueError(f"a {what} cannot be written as a whole. Write to the node of one of its fields")
    lengths = _lengths(index_range)
    is_text = known.builtin in _STRINGS and known.rank == -1
    if lengths and known.rank == -1 and not is_text:
        raise ValueError("the node holds one value, which has no parts. Take index_range out")
    if lengths and not is_text:
        return _array(_within(value, lengths), known, len(lengths), namespaces)
    rank = _rank_of(value)
    _check_rank(rank, known)
    if rank:
        return _array(value, known, rank, namespaces)
    kind = _kind_of(value, known)
    encoded = _encoder(kind, known.labels, namespaces)(value)
    if lengths and len(encoded or ()) != lengths[0]:
        raise ValueError(
            f"the part {index_range} is {lengths[0]} long, not {len(encoded or ())}. Give as much as it takes"
        )
    return ua.Variant(encoded, ua.VariantType(kind))


def _array(value: Any, known: Known, rank: int, namespaces: Sequence[str]) -> Any:
    """An array, or a matrix where the rank is above 1."""
    flat, shape = [value], []
    for _ in range(rank):
        if not all(isinstance(part, list) for part in flat) or len(set(map(len, flat))) > 1:
            raise ValueError(f"the lists are not of one length, in {rank} levels. Give each row as many values")
        shape.append(len(flat[0]) if flat else 0)
        flat = [part for row in flat for part in row]
    kind = _kind_of(flat[0] if flat else "", known)
    encoder = _encoder(kind, known.labels, namespaces)
    encoded = []
    for at, part in enumerate(flat):
        try:
            encoded.append(encoder(part))
        except ValueError as error:
            raise ValueError(f"value {at + 1} of {len(flat)}: {error}") from None
    return ua.Variant(encoded, ua.VariantType(kind), shape if rank > 1 else None, is_array=True)


def _rank_of(value: Value) -> int:
    """How many lists stand in one another."""
    rank = 0
    while isinstance(value, list):
        rank += 1
        value = value[0] if value else None
    return rank


def _check_rank(rank: int, known: Known) -> None:
    """Whether a node of that value rank takes it [Part 3 5.6.2]."""
    fits = {-3: rank <= 1, -2: True, -1: rank == 0, 0: rank > 0}.get(known.rank, rank == known.rank)
    if fits:
        return
    if known.rank == -1:
        raise ValueError("the node holds one value, not a list. Give the value alone")
    levels = "a list" if known.rank <= 1 else f"lists in {known.rank} levels"
    raise ValueError(f"the node holds an array. Give {levels}, or say with index_range which part is meant")


def _lengths(index_range: str | None) -> list[int]:
    """How many values each dimension of an index range takes [Part 4 7.27]."""
    lengths = []
    for part in index_range.split(",") if index_range else ():
        first, _, last = part.partition(":")
        length = int(last or first) - int(first) + 1
        if length < 1 or (last and length < 2):
            raise ValueError(f"index_range: {part} ends where it begins, or before. Write the lower number first")
        lengths.append(length)
    return lengths


def _within(value: Value, lengths: Sequence[int]) -> Value:
    """The lists that an index range takes; where it is one element in all, that may stand alone."""
    if not isinstance(value, list) and set(lengths) == {1}:
        for _ in lengths:
            value = [value]
    rows: list[Any] = [value]
    for length in lengths:
        if any(not isinstance(row, list) or len(row) != length for row in rows):
            sizes = " x ".join(map(str, lengths))
            raise ValueError(f"index_range names {sizes} values, the value has others. Give as many, in lists")
        rows = [part for row in rows for part in row]
    return value


def _kind_of(value: Any, known: Known) -> int:
    """The built-in type to send."""
    if known.builtin not in _ANY:
        return known.builtin
    if isinstance(value, bool):
        return 1
    if isinstance(value, int):
        low, high = _INTEGERS[6]
        return 6 if low <= value <= high else 8
    return 11 if isinstance(value, float) else 12


def _encoder(kind: int, labels: Mapping[int, str] | None, namespaces: Sequence[str]) -> Callable[[Any], Any]:
    """What turns one value into what the library sends."""
    if kind in _INTEGERS:
        return lambda value: _integer(value, kind, labels)
    if kind in {10, 11}:
        return lambda value: _float(value, kind)
    if kind in {17, 18, 20}:
        return lambda value: _NAMED[kind](_text(value, kind), namespaces)
    return _PLAIN[kind]


def _refuse(value: object, kind: int, cure: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{shown[:60]} is no {_WORDS[kind]}. {cure}")


def _integer(value: object, kind: int, labels: Mapping[int, str] | None) -> int:
    if labels and isinstance(value, str):
        return _number_of(value, labels)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    low, high = _INTEGERS[kind]
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(value, kind, f"Give a whole number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{value} does not fit into {_WORDS[kind]}. Give a number from {low} to {high}")
    if labels and value not in labels:
        raise ValueError(f"{value} is no number of this enumeration. Give one of {_shown(labels)}")
    return value


def _number_of(name: str, labels: Mapping[int, str]) -> int:
    """The number of an enumeration that has that name, or is it in digits."""
    for number, label in labels.items():
        if label == name:
            return number
    if name.lstrip("-").isdecimal() and int(name) in labels:
        return int(name)
    raise ValueError(f"'{name[:60]}' is no name of this enumeration. Give one of {_shown(labels)}")


def _shown(labels: Mapping[int, str]) -> str:
    names = [f"{label} ({number})" for number, label in list(labels.items())[:12]]
    return ", ".join(names) + (", …" if len(labels) > len(names) else "")


def _float(value: object, kind: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refuse(value, kind, "Give a number")
    try:
        number = float(value)
        struct.pack("<f" if kind == 10 else "<d", number)
    except OverflowError:
        number = inf
    if not isfinite(number):
        raise ValueError(f"{str(value)[:60]} does not fit into {_WORDS[kind]}. Give a smaller number")
    return number


def _boolean(value: object) -> bool:
    if isinstance(value, (bool, int, float)) and value in {0, 1}:
        return bool(value)
    raise _refuse(value, 1, "Give true or false")


def _text(value: object, kind: int = 12) -> str:
    if not isinstance(value, str):
        raise _refuse(value, kind, "Give text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refuse(value, kind, "Give text that is UTF-8") from None
    return value


def _time(value: object) -> datetime:
    cure = "Give a time as ISO 8601 with its zone, like 2026-11-02T10:00:00Z"
    try:
        time = datetime.fromisoformat(_text(value, 13))
    except ValueError:
        raise _refuse(value, 13, cure) from None
    if time.tzinfo is None:
        raise _refuse(value, 13, cure)
    try:
        time = time.astimezone(UTC)
    except OverflowError:
        raise _refuse(value, 13, cure) from None
    if time < datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC) + timedelta(microseconds=1):
        raise _refuse(value, 13, f"Give a time after {_FIRST_YEAR}")
    return time


def _guid(value: object) -> UUID:
    try:
        return UUID(_text(value, 14))
    except ValueError:
        raise _refuse(value, 14, "Give 32 hexadecimal digits, like 72962b91-fa75-4ae6-8d28-b404dc7daf63") from None


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return bytes.fromhex(_text(value, 15))
    except ValueError:
        raise _refuse(value, 15, "Give hexadecimal digits, two a byte, like 01ff") from None


def _status(value: object) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return ua.StatusCode(value)
    high = next((high for high, name in NAMES.items() if name == value), None)
    if high is None:
        raise _refuse(value, 19, "Give a name of the standard, like BadSensorFailure, or a number")
    return ua.StatusCode(high << 16)


def _node_id(text: str, namespaces: Sequence[str]) -> Any:
    cure = "Give one like i=85, ns=2;s=Tank or nsu=urn:plant;s=Tank"
    try:
        address = parse(text)
    except ValueError:
        raise _refuse(text, 17, cure) from None
    if not isinstance(address, NodeAddress):
        raise _refuse(text, 17, cure)
    space = address.namespace
    if isinstance(space, str):
        if space not in namespaces:
            raise ValueError(f"the server has no namespace {space[:60]}. Give one of its own")
        space = list(namespaces).index(space)
    identifier = UUID(str(address.identifier)) if address.kind == "g" else address.identifier
    return ua.NodeId(identifier, space)


def _expanded(text: str, namespaces: Sequence[str]) -> Any:
    node = _node_id(text, namespaces)
    return ua.ExpandedNodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _qualified_name(text: str, namespaces: Sequence[str]) -> Any:
    space, colon, name = text.partition(":")
    if not colon or not space.isdecimal():
        return ua.QualifiedName(text, 0)
    if int(space) > 65535 or (namespaces and int(space) >= len(namespaces)):
        raise _refuse(text, 20, "The number before the colon is that of a namespace of the server")
    return ua.QualifiedName(name, int(space))


_NAMED: Final[dict[int, Callable[[str, Sequence[str]], Any]]] = {
    17: _node_id, 18: _expanded, 20: _qualified_name,
}  # fmt: skip
_PLAIN: Final[dict[int, Callable[[Any], Any]]] = {
    1: _boolean, 12: _text, 13: _time, 14: _guid, 15: _bytes, 16: lambda value: ua.XmlElement(_text(value, 16)),
    19: _status, 21: lambda value: ua.LocalizedText(_text(value, 21)),
}  # fmt: skip
