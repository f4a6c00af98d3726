"""Addresses into node ids, and what must be known of the nodes: type, shape, access. In few requests for thousands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from asyncua import ua

from drivers.opcua.address import NodeAddress
from drivers.opcua.nodes.asking import Asks
from drivers.opcua.nodes.kinds import WORDS, Kinds, labels_below
from drivers.opcua.nodes.known import Known
from drivers.opcua.nodes.requests import attributes, code_of, content, kinds_of_values
from drivers.opcua.values.status import is_bad

_DATA_TYPE, _VALUE_RANK, _USER_ACCESS = 14, 15, 18
"""Attributes [Part 6 A.1]."""
_SCALAR = -1
_OPEN_RANKS = frozenset({-2, -3})
"""Any, ScalarOrOneDimension: the value says which it is [Part 3 5.6.2]."""
_UNSIGNED = frozenset({3, 5, 7, 9})


def node_of(address: NodeAddress, namespaces: Sequence[str]) -> ua.NodeId | None:
    """The node id in this session; None where the server has no such namespace."""
    index = address.namespace
    if isinstance(index, str):
        if index not in namespaces:
            return None
        index = namespaces.index(index)
    own: Any = UUID(str(address.identifier)) if address.kind == "g" else address.identifier
    return ua.NodeId(own, index)  # type: ignore[arg-type]


def address_of(node: ua.NodeId, namespaces: Sequence[str]) -> NodeAddress:
    """The address that stays right when the server counts its namespaces anew; ns= where an index has no URI."""
    index = int(node.NamespaceIndex)
    space: int | str = namespaces[index] if 0 < index < len(namespaces) and namespaces[index] else index
    own: Any = node.Identifier
    if isinstance(own, UUID):
        return NodeAddress(space, "g", str(own))
    if isinstance(own, bytes):
        return NodeAddress(space, "b", own)
    return NodeAddress(space, "i", own) if isinstance(own, int) else NodeAddress(space, "s", str(own or ""))


async def describe(
    session: Asks, nodes: Sequence[ua.NodeId], kinds: Kinds, *, timeout_s: float
) -> list[tuple[Known, int]]:
    """What is known of each node, and the StatusCode of why it is not: then only the node itself is known.

    Raises LineError when the link is gone, or the values that must tell their types are not there in `timeout_s`.
    """
    wanted = [(node, attribute) for node in nodes for attribute in (_DATA_TYPE, _VALUE_RANK, _USER_ACCESS)]
    values = await attributes(session, wanted)
    types, ranks, access = values[::3], values[1::3], values[2::3]
    data_types = [content(value, ua.NodeId) for value in types]
    await kinds.learn({kind for kind in data_types if kind is not None})
    found = [
        (_known(node, kind, content(rank, int), content(bits, int), kinds), code_of(value))
        for node, kind, rank, bits, value in zip(nodes, data_types, ranks, access, types, strict=True)
    ]
    return await _with_labels(session, await _by_value(session, found, timeout_s))


def _known(node: ua.NodeId, data_type: ua.NodeId | None, rank: int | None, access: int | None, kinds: Kinds) -> Known:
    kind = kinds.of(data_type)
    rank = _SCALAR if rank is None else rank
    return Known(
        node=node,
        type=WORDS.get(kind.builtin, "") if rank == _SCALAR else "",
        builtin=kind.builtin,
        rank=rank,
        data_type=data_type,
        labels=kind.labels,
        access=access or 0,
    )


async def _by_value(session: Asks, found: Sequence[tuple[Known, int]], timeout_s: float) -> list[tuple[Known, int]]:
    """Where the data type or the rank is left open, what the value has now."""
    open_ones = [i for i, (own, code) in enumerate(found) if not code and (not own.builtin or own.rank in _OPEN_RANKS)]
    values = await kinds_of_values(session, [found[i][0].node for i in open_ones], timeout_s)
    told = list(found)
    for i, (status, kind, shape) in zip(open_ones, values, strict=True):
        own, code = found[i]
        if is_bad(status) or not kind:
            continue
        builtin = own.builtin or kind
        rank = shape if own.rank in _OPEN_RANKS else own.rank
        word = WORDS.get(builtin, "") if rank == _SCALAR else ""
        told[i] = replace(own, builtin=builtin, rank=rank, type=word), code
    return told


async def _with_labels(session: Asks, found: Sequence[tuple[Known, int]]) -> list[tuple[Known, int]]:
    """Numbers whose variable itself names its values: MultiStateDiscrete [Part 8 5.3.3.4]."""
    may = [own.node for own, code in found if not code and own.builtin in _UNSIGNED and own.rank == _SCALAR]
    named = await labels_below(session, may)
    return [(replace(own, labels=named[own.node]) if own.node in named else own, code) for own, code in found]
