"""What is below nodes: Browse for many of them at once, BrowseNext for what did not fit, several requests under way.

A request names more nodes the less the last answers held and the sooner they came, up to what the server takes. What
a server says is not trusted: a continuation that brings nothing new ends, and all that comes is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import (
    BAD_DECODING,
    BAD_UNEXPECTED,
    IN_FLIGHT,
    MOST_SPLITS,
    TOO_MUCH,
    Asks,
    side_by_side,
)

OBJECT, VARIABLE, METHOD = 1, 2, 4
"""Node classes [Part 3 8.29]; also the bits of a mask of them."""
HIERARCHICAL, HAS_SUBTYPE, HAS_PROPERTY = 33, 45, 46
"""Reference types of the standard."""
FORWARD, INVERSE = 0, 1

PAGE = 1000
"""So many references of a node come at once, the rest is asked for with its continuation point."""
_FIRST_NODES = 20
_ENOUGH = 5000
"""References in an answer that need no more nodes in the next request: about half a megabyte."""
_SOON_S, _LATE_S = 0.5, 2.0
_WANTED = 1 | 2 | 4 | 8
"""Of each reference: its type, its direction, the node class and the browse name [Part 4 5.9.2]."""
_NO_POINTS, _POINT_INVALID = 0x804B0000, 0x804A0000
"""The server has no continuation point left, or gave ours to another request: both pass when we ask for one alone."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One node below another. `namespace` and `name` are its browse name."""

    node: ua.NodeId
    namespace: int
    name: str
    node_class: int
    is_property: bool


@dataclass(slots=True)
class Listing:
    """What is below a node. `code`: why it is not known, a StatusCode; `is_cut`: there is more than was wanted."""

    references: list[Reference] = field(default_factory=list)
    code: int = 0
    is_cut: bool = False


@dataclass(slots=True, kw_only=True)
class Browser:
    """Asks a session what is below nodes. `reference` with its subtypes is followed, in one direction."""

    session: Asks
    mask: int = OBJECT | VARIABLE
    reference: int = HIERARCHICAL
    direction: int = FORWARD
    nodes_a_request: int = _FIRST_NODES

    async def below(self, nodes: Sequence[ua.NodeId], *, most: int) -> list[Listing]:
        """A listing for each node; `most` references in all, what is beyond is left out. Raises LineError."""
        listings = [Listing() for _ in nodes]
        rest = _Rest(most)
        again: list[int] = []
        at = 0

        async def work() -> None:
            nonlocal at
            while at < len(nodes):
                first, count = at, min(self.nodes_a_request, self.session.limits.max_nodes_per_browse, len(nodes) - at)
                at += count
                again.extend(await self._ask(nodes, range(first, first + count), listings, rest))

        await side_by_side(work, min(IN_FLIGHT, len(nodes)))
        for index in again:  # nothing else is under way now
            page = PAGE if listings[index].code == _POINT_INVALID else 0
            rest.left += len(listings[index].references)
            listings[index] = Listing()
            await self._ask(nodes, [index], listings, rest, page=page)
        return listings

    async def _ask(
        self,
        nodes: Sequence[ua.NodeId],
        indices: Sequence[int],
        listings: list[Listing],
        rest: _Rest,
        page: int = PAGE,
    ) -> list[int]:
        """One Browse and what continues it; gives those to ask again alone, for lack of continuation points."""
        if rest.is_used_up:
            for index in indices:
                listings[index].is_cut = True
            return []
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            results = (await self.session.call(self._request([nodes[i] for i in indices], page))).Results or []
        except ServiceFault as fault:
            is_odd = fault.code == BAD_DECODING and rest.splits > 0
            if len(indices) > 1 and (is_odd or fault.code in TOO_MUCH):
                rest.splits -= is_odd
                half = (len(indices) + 1) // 2
                self.nodes_a_request = self.nodes_a_request if is_odd else min(self.nodes_a_request, half)
                first = await self._ask(nodes, indices[:half], listings, rest)
                return first + await self._ask(nodes, indices[half:], listings, rest)
            for index in indices:
                listings[index].code = fault.code
            return []
        for index in indices[len(results) :]:
            listings[index].code = BAD_UNEXPECTED
        found = sum(len(result.References or ()) for result in results)
        self._adapt(len(indices), found, loop.time() - began)
        points = {
            index: result.ContinuationPoint
            for index, result in zip(indices, results, strict=False)
            if self._take(listings[index], result, rest) and result.ContinuationPoint
        }
        again = [i for i in indices if listings[i].code in (_NO_POINTS, _POINT_INVALID)]
        return again + await self._continue(points, listings, rest)

    async def _continue(self, points: dict[int, bytes], listings: list[Listing], rest: _Rest) -> list[int]:
        """BrowseNext until nothing is left, or nothing new comes; gives those whose points the server gave away."""
        again: list[int] = []
        seen = {index: set(_identities(listings[index].references)) for index in points}
        most = self.session.limits.max_nodes_per_browse
        while points and not rest.is_used_up:
            asked = dict(list(points.items())[:most])
            try:
                results = (await self.session.call(_next(asked.values(), release=False))).Parameters.Results or []
            except ServiceFault as fault:
                most = (len(asked) + 1) // 2
                if fault.code not in TOO_MUCH or len(asked) == 1:
                    _give_up(asked, points, listings, fault.code)
                continue
            idle: list[bytes] = []
            _give_up(list(asked)[len(results) :], points, listings, BAD_UNEXPECTED)
            for index, result in zip(asked, results, strict=False):
                del points[index]
                if self._has_news(listings[index], result, seen[index], rest):
                    points |= {index: result.ContinuationPoint} if result.ContinuationPoint else {}
                elif listings[index].code == _POINT_INVALID:
                    again.append(index)
                elif result.ContinuationPoint:
                    idle.append(result.ContinuationPoint)  # it would go on for ever
            await self._release(idle)
        for index in points:
            listings[index].is_cut = True
        await self._release(points.values())
        return again

    def _has_news(self, listing: Listing, result: Any, seen: set[tuple[ua.NodeId, str]], rest: _Rest) -> bool:
        """Add a page, if it is good and holds anything that was not `seen`."""
        before = len(listing.references)
        if not self._take(listing, result, rest):
            return False
        news = set(_identities(listing.references[before:])) - seen
        seen |= news
        if not news:
            del listing.references[before:]
        return bool(news)

    async def _release(self, points: Iterable[bytes]) -> None:
        """Give continuation points back: the server has few [Part 4 5.9.3]."""
        kept = list(points)
        most = self.session.limits.max_nodes_per_browse
        for at in range(0, len(kept), most):
            try:
                await self.session.call(_next(kept[at : at + most], release=True))
            except ServiceFault:
                return  # they end with the session

    def _take(self, listing: Listing, result: Any, rest: _Rest) -> bool:
        """Add what a result holds. Whether it is good."""
        code = result.StatusCode.value
        if code & 0x80000000:
            listing.code = code
            return False
        for found in result.References or ():
            node = local(found.NodeId, self.session.namespaces)
            if node is None or bool(found.IsForward) != (self.direction == FORWARD):
                continue
            if rest.is_used_up:
                listing.is_cut = True
                break
            rest.left -= 1
            listing.references.append(_reference(node, found))
        return True

    def _request(self, nodes: Sequence[ua.NodeId], page: int) -> ua.BrowseRequest:
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = ua.UInt32(page)
        request.Parameters.NodesToBrowse = [
            ua.BrowseDescription(
                NodeId=node,
                BrowseDirection=ua.BrowseDirection(self.direction),
                ReferenceTypeId=ua.NodeId(ua.Int32(self.reference)),
                IncludeSubtypes=True,
                NodeClassMask=ua.UInt32(self.mask),
                ResultMask=ua.UInt32(_WANTED),
            )
            for node in nodes
        ]
        return request

    def _adapt(self, asked: int, found: int, took_s: float) -> None:
        """Name more nodes in a request, or fewer, by what the last one brought."""
        most = self.session.limits.max_nodes_per_browse
        if took_s > _LATE_S or found > 2 * _ENOUGH:
            fitting = asked * _ENOUGH // found if found > 2 * _ENOUGH else asked // 2
            self.nodes_a_request = max(1, min(self.nodes_a_request, fitting))
        elif took_s < _SOON_S and found < _ENOUGH // 2 and asked >= self.nodes_a_request:
            self.nodes_a_request *= 2
        self.nodes_a_request = min(self.nodes_a_request, most)


@dataclass(slots=True)
class _Rest:
    """How many references may still come, and how often a request may be taken apart for an odd answer."""

    left: int
    splits: int = MOST_SPLITS

    @property
    def is_used_up(self) -> bool:
        return self.left <= 0


def local(node: ua.NodeId, namespaces: Sequence[str]) -> ua.NodeId | None:
    """The node id of a node that a reference names; None where it lives in another server."""
    if not isinstance(node, ua.ExpandedNodeId):
        return node
    if node.ServerIndex:
        return None
    if not node.NamespaceUri:
        return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
    if node.NamespaceUri not in namespaces:
        return None
    return ua.NodeId(node.Identifier, namespaces.index(node.NamespaceUri))  # type: ignore[arg-type]


def _give_up(indices: Iterable[int], points: dict[int, bytes], listings: list[Listing], code: int) -> None:
    """What is left of these nodes is not known, for that reason."""
    for index in indices:
        listings[index].code = code
        del points[index]


def _reference(node: ua.NodeId, found: Any) -> Reference:
    kind = found.ReferenceTypeId
    return Reference(
        node=node,
        namespace=found.BrowseName.NamespaceIndex,
        name=found.BrowseName.Name or "",
        node_class=int(found.NodeClass),
        is_property=kind.NamespaceIndex == 0 and kind.Identifier == HAS_PROPERTY,
    )


def _identities(references: Iterable[Reference]) -> Iterable[tuple[ua.NodeId, str]]:
    return ((reference.node, reference.name) for reference in references)


def _next(points: Iterable[bytes], *, release: bool) -> ua.BrowseNextRequest:
    request = ua.BrowseNextRequest()
    request.Parameters.ReleaseContinuationPoints = release
    request.Parameters.ContinuationPoints = list(points)
    return request
