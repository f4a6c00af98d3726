"""Requests about many nodes: paths into nodes, and attributes; what the answers hold, not trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncua import ua

from drivers.opcua.address import PathAddress
from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import BAD_DECODING, Asks, in_chunks
from drivers.opcua.nodes.browsing import HIERARCHICAL, local
from drivers.opcua.values.parsing import parse_kinds
from drivers.opcua.values.status import name_of

BAD_NO_MATCH = 0x806F0000
VALUE = 13
"""The attribute Value [Part 6 A.1]."""
_WHOLE = 0xFFFF_FFFF
"""Nothing of the path is left: the target is its end [Part 4 5.9.4.2]."""


async def translate(
    session: Asks, starts: Sequence[tuple[ua.NodeId, PathAddress]]
) -> list[tuple[ua.NodeId | None, int]]:
    """The nodes that paths of full browse names lead to, or why not [Part 4 5.9.4]."""

    async def ask(chunk: Sequence[tuple[ua.NodeId, PathAddress]]) -> list[tuple[ua.NodeId | None, int]]:
        request = ua.TranslateBrowsePathsToNodeIdsRequest()
        request.Parameters.BrowsePaths = [ua.BrowsePath(start, _relative(path)) for start, path in chunk]
        results = (await session.call(request)).Results or []
        return [_target(result, session.namespaces) for result in results]

    return await in_chunks(starts, session.limits.max_nodes_per_translate, ask, lambda code: (None, code))


def _relative(path: PathAddress) -> ua.RelativePath:
    element: Any = ua.RelativePathElement  # its fields want types of the library that nobody has
    below = ua.NodeId(ua.Int32(HIERARCHICAL))
    return ua.RelativePath(
        [
            element(
                below,
                IsInverse=False,
                IncludeSubtypes=True,
                TargetName=ua.QualifiedName(step.name, step.namespace or 0),
            )
            for step in path.steps
        ]
    )


def _target(result: Any, namespaces: Sequence[str]) -> tuple[ua.NodeId | None, int]:
    """The first target that is wholly in this server."""
    for target in result.Targets or ():
        node = local(target.TargetId, namespaces) if target.RemainingPathIndex == _WHOLE else None
        if node is not None:
            return node, 0
    return None, result.StatusCode.value or BAD_NO_MATCH


async def attributes(session: Asks, wanted: Sequence[tuple[ua.NodeId, int]]) -> list[ua.DataValue]:
    """Attributes of nodes; one that cannot be read is a DataValue with a bad code."""

    async def ask(chunk: Sequence[tuple[ua.NodeId, int]]) -> list[ua.DataValue]:
        return (await session.call(_read_request(chunk))).Results or []

    return await in_chunks(wanted, session.limits.max_nodes_per_read, ask, _bad_value)


async def kinds_of_values(session: Asks, nodes: Sequence[ua.NodeId], timeout_s: float) -> list[tuple[int, int, int]]:
    """What the values of nodes are now: StatusCode, built-in type (0 without a value), rank.

    Taken apart by ourselves: a value may be anything, and the library stumbles over what it does not know.
    """

    async def ask(chunk: Sequence[ua.NodeId]) -> list[tuple[int, int, int]]:
        body = await session.fetch(_read_request([(node, VALUE) for node in chunk]), timeout_s=timeout_s)
        try:
            return parse_kinds(body)
        except ValueError as error:
            raise ServiceFault(BAD_DECODING, name_of(BAD_DECODING), "Read") from error

    return await in_chunks(nodes, session.limits.max_nodes_per_read, ask, lambda code: (code, 0, -1))


def _read_request(wanted: Sequence[tuple[ua.NodeId, int]]) -> ua.ReadRequest:
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
    request.Parameters.NodesToRead = [
        ua.ReadValueId(NodeId=node, AttributeId=ua.UInt32(attribute)) for node, attribute in wanted
    ]
    return request


def _bad_value(code: int) -> ua.DataValue:
    return ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(code)))


def code_of(value: ua.DataValue) -> int:
    """The StatusCode of what was read where it is bad, else 0."""
    code = 0 if value.StatusCode is None else int(value.StatusCode.value)
    return code if code & 0x80000000 else 0


def content(value: ua.DataValue, kind: type | tuple[type, ...]) -> Any:
    """What was read, None where it is bad or no such thing."""
    own = None if code_of(value) or value.Value is None else value.Value.Value
    return own if isinstance(own, kind) else None
