"""Structures of the standard itself, from the library: for servers that do not say what theirs are made of."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum, IntFlag
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from asyncua import ua as _ua

from drivers.opcua.values.layouts import Layout, Member

ua: Any = _ua  # its names are made at run time: no checker sees them

_STRUCTURE, _INT32 = 22, 6
_BUILTIN: Final = {kind.name: int(kind) for kind in ua.VariantType if kind}


def standard_layout(data_type: Any) -> Layout | None:
    """The fields of a structure of namespace 0, by the NodeId of its data type; None where the library has none."""
    found = _by_type().get(data_type)
    return None if found is None else _layout(found)


def standard_type(encoding: Any) -> Any:
    """The data type whose binary encoding has this NodeId, None where the library knows of none."""
    found = ua.extension_objects_by_typeid.get(encoding)
    return None if found is None else getattr(found, "data_type", None)


@cache
def _by_type() -> dict[Any, type]:
    return {found.data_type: found for found in ua.extension_objects_by_typeid.values() if hasattr(found, "data_type")}


@cache
def _layout(found: type) -> Layout | None:
    """None where a field is of a kind that cannot be told from the outside, or stands there only sometimes."""
    try:
        hints = get_type_hints(found, None, {"ua": _ua})
    except (AttributeError, NameError):  # the library names a type that it does not have
        return None
    layout = Layout()
    for field in fields(found):
        member = _member(field.name, hints[field.name])
        if member is None:
            return None
        layout.members.append(member)
    return layout


def _member(name: str, hint: Any) -> Member | None:
    origin = get_origin(hint)
    if origin is list:
        member = _member(name, get_args(hint)[0])
        if member is not None:
            member.rank = 1
        return member
    if origin is type:  # a structure or one derived from it, with a head that says which
        return Member(name, _STRUCTURE)
    if origin is UnionType or not isinstance(hint, type) or issubclass(hint, NoneType):
        return None
    if issubclass(hint, IntFlag):
        return Member(name, _BUILTIN[hint.datatype()] if hasattr(hint, "datatype") else _BUILTIN["UInt32"])
    if issubclass(hint, Enum):
        return Member(name, _INT32, labels={one.value: one.name for one in hint})
    kind = next((_BUILTIN[own.__name__] for own in hint.__mro__ if own.__name__ in _BUILTIN), None)
    if kind is not None:
        return Member(name, kind)
    layout = _layout(hint) if is_dataclass(hint) else None
    return None if layout is None else Member(name, 0, layout=layout)
