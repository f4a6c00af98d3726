"""What a server says of itself when a session begins: how much it takes at once, and the URIs of its namespaces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua as _ua

from drivers.opcua.faults import ServiceFault

ua: Any = _ua  # its names are made at run time: no checker sees them

STANDARD: Final = "http://opcfoundation.org/UA/"
"""The URI of namespace 0 in every server [Part 3 8.2.2]."""
_NAMESPACES: Final = 2255
_STATE: Final = 2259
_NODES: Final = (11705, 11710, 11712, 11714, 12165)
"""The operation limits of Part 5 6.3.11, in the order of the fields of Limits."""

Call = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many nodes, paths or items one request may name; 1 at least."""

    max_nodes_per_read: int
    max_nodes_per_browse: int
    max_nodes_per_translate: int
    max_monitored_items_per_call: int
    max_history_nodes: int


async def read_limits(call: Call, max_per_call: int) -> Limits:
    """The server's own, where they are smaller than `max_per_call`; 0 and nothing mean none. Raises LineError."""
    try:
        found = await _read(call, _NODES)
    except ServiceFault:  # it takes fewer than five at once, or has a fault: one by one, it is only at the beginning
        found = [(await _read_one(call, node)) for node in _NODES]
    return Limits(*(_least(value, max_per_call) for value in found))


async def read_namespaces(call: Call) -> tuple[str, ...]:
    """URIs by index. Raises LineError; a server that does not tell has the standard's alone."""
    found = await _read_one(call, _NAMESPACES)
    if not isinstance(found, list):
        return (STANDARD,)
    return tuple(uri if isinstance(uri, str) else "" for uri in found)


async def _read_one(call: Call, node: int) -> Any:
    try:
        return (await _read(call, (node,)))[0]
    except ServiceFault:
        return None


def state_request() -> Any:
    """The cheapest request that there is: it asks for the server's state."""
    return _request((_STATE,))


def _request(nodes: Sequence[int]) -> Any:
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
    request.Parameters.NodesToRead = [
        ua.ReadValueId(NodeId=ua.NodeId(node), AttributeId=ua.AttributeIds.Value) for node in nodes
    ]
    return request


async def _read(call: Call, nodes: Sequence[int]) -> list[Any]:
    """Values of nodes of namespace 0, None for each that is bad or missing."""
    results = list((await call(_request(nodes))).Results or ())[: len(nodes)]
    values = [one.Value.Value if one.StatusCode.is_good() and one.Value is not None else None for one in results]
    return values + [None] * (len(nodes) - len(values))


def _least(value: Any, most: int) -> int:
    """The server's limit or ours; whatever is no number above 0 is no limit."""
    return min(value, most) if isinstance(value, int) and value > 0 else most
