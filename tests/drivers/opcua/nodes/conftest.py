"""A server in memory, behind the door that the rooms for nodes ask at: a tree, and every way in which it is difficult.

server.add("Plant", kind=OBJECT)                     below Objects; server.add("Level", plant) below another
server.page, server.points, server.most              references a page, continuation points it has, nodes a request
server.repeats = True                                a continuation point that never ends
server.odd                                           nodes whose values the library cannot decode
server.heard                                         every request that came, as the library's objects
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from drivers.opcua.faults import ServiceFault
from drivers.opcua.values.structures import Structures

OBJECTS = ua.NodeId(85)
HAS_SUBTYPE = 45
TOO_MANY, NO_POINTS, POINT_INVALID, UNKNOWN, NO_MATCH, UNSUPPORTED, NO_ATTRIBUTE, DECODING = (
    0x80100000, 0x804B0000, 0x804A0000, 0x80340000, 0x806F0000, 0x800B0000, 0x80350000,
    0x80070000,
)  # fmt: skip


class Server:
    """What the rooms for nodes need of a session, answered out of a dict."""

    def __init__(self):
        self.line = "opc.tcp://h:4840"
        self.namespaces = ("http://opcfoundation.org/UA/", "urn:server", "urn:plant")
        self.limits = SimpleNamespace(max_nodes_per_read=1000, max_nodes_per_browse=1000, max_nodes_per_translate=1000)
        self.structures = Structures()
        self.structures.begin(self.namespaces)
        self.nodes = {OBJECTS: {2: 1, 3: ua.QualifiedName("Objects", 0)}}
        self.below = {}
        self.refused = {}
        self.odd = set()
        self.page, self.points, self.most = 10**9, 10**9, 10**9
        self.repeats = self.cannot_translate = self.steals = False
        self.heard, self.open, self.released, self.in_flight, self.most_in_flight = [], {}, [], 0, 0
        self.number = 0

    def add(self, name, above=OBJECTS, *, kind=2, node=None, space=2, reference=47, **attributes):
        """A node below another; `attributes` by name: value, data_type, rank, access."""
        node = node or ua.NodeId(f"{above.Identifier}/{name}" if above != OBJECTS else name, space)
        if node not in self.nodes:
            own = {2: kind, 3: ua.QualifiedName(name, space)}
            if kind == 2:
                own |= {
                    13: attributes.get("value", ua.Variant(1.5, ua.VariantType.Double)),
                    14: attributes.get("data_type", ua.NodeId(11)),
                    15: attributes.get("rank", -1),
                    18: attributes.get("access", 1),
                }
            self.nodes[node] = own | attributes.get("more", {})
        self.below.setdefault(node, [])
        self.below.setdefault(above, []).append((reference, node))
        return node

    def count(self, name):
        """How many requests of that kind came."""
        return sum(type(request).__name__ == f"{name}Request" for request in self.heard)

    async def call(self, request, *, timeout_s=None):
        """An answer, some turns of the loop later; none where it holds a value that the library cannot decode."""
        response = await self._answer(request)
        if type(request).__name__ == "ReadRequest":
            asked = {one.NodeId for one in request.Parameters.NodesToRead if one.AttributeId == 13}
            if asked & self.odd:
                raise ServiceFault(DECODING, "BadDecodingError", "Read")
        return response

    async def _answer(self, request):
        self.heard.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return getattr(self, f"_{type(request).__name__.removesuffix('Request').lower()}")(request)
        finally:
            self.in_flight -= 1

    async def fetch(self, request, *, timeout_s):
        """The same as bytes."""
        assert timeout_s  # without one it would wait for ever
        return struct_to_binary(await self._answer(request))

    def _check(self, asked):
        if len(asked) > self.most:
            raise ServiceFault(TOO_MANY, "BadTooManyOperations", "request")

    def _browse(self, request):
        own = request.Parameters
        self._check(own.NodesToBrowse)
        if self.steals:
            self.open.clear()  # a server may give the points of former requests away [Part 4 5.9.3]
        page = min(self.page, own.RequestedMaxReferencesPerNode or 10**9)
        response = ua.BrowseResponse()
        response.Results = [self._listed(one, page) for one in own.NodesToBrowse]
        return response

    def _listed(self, one, page):
        if one.NodeId in self.refused or (one.NodeId not in self.nodes and not self._is_standard(one.NodeId)):
            return ua.BrowseResult(StatusCode=ua.StatusCode(self.refused.get(one.NodeId, UNKNOWN)))
        return self._paged(self._references(one), page)

    @staticmethod
    def _is_standard(node):
        return node.NamespaceIndex == 0

    def _references(self, one):
        kind, is_inverse = one.ReferenceTypeId.Identifier, one.BrowseDirection == ua.BrowseDirection.Inverse
        if is_inverse:
            pairs = [(own, above) for above, all_ in self.below.items() for own, node in all_ if node == one.NodeId]
        else:
            pairs = self.below.get(one.NodeId, [])
        wanted = [(own, node) for own, node in pairs if (own == HAS_SUBTYPE) == (kind == HAS_SUBTYPE)]
        mask = one.NodeClassMask
        return [
            self._reference(own, node, is_forward=not is_inverse)
            for own, node in wanted
            if not mask or self.nodes.get(node, {}).get(2, 0) & mask
        ]

    def _reference(self, reference, node, *, is_forward):
        own = self.nodes.get(node) or {2: 64, 3: ua.QualifiedName(str(node.Identifier), 0)}
        return ua.ReferenceDescription(
            ReferenceTypeId=ua.NodeId(reference),
            IsForward=is_forward,
            NodeId=ua.ExpandedNodeId(node.Identifier, node.NamespaceIndex),
            BrowseName=own[3],
            NodeClass=ua.NodeClass(own[2]),
        )

    def _paged(self, references, page):
        result = ua.BrowseResult(References=references[:page])
        if len(references) > page or (self.repeats and references):
            if len(self.open) >= self.points:
                return ua.BrowseResult(StatusCode=ua.StatusCode(NO_POINTS))
            self.number += 1
            result.ContinuationPoint = b"same" if self.repeats else b"%d" % self.number
            self.open[result.ContinuationPoint] = (references if self.repeats else references[page:], page)
        return result

    def _browsenext(self, request):
        own = request.Parameters
        self._check(own.ContinuationPoints)
        response = ua.BrowseNextResponse()
        for point in own.ContinuationPoints:
            left = self.open.pop(point, None)
            if own.ReleaseContinuationPoints:
                self.released.append(point)
                response.Parameters.Results.append(ua.BrowseResult())
            elif left is None:
                response.Parameters.Results.append(ua.BrowseResult(StatusCode=ua.StatusCode(POINT_INVALID)))
            else:
                response.Parameters.Results.append(self._paged(*left))
        return response

    def _translatebrowsepathstonodeids(self, request):
        paths = request.Parameters.BrowsePaths
        self._check(paths)
        if self.cannot_translate:
            raise ServiceFault(UNSUPPORTED, "BadServiceUnsupported", "request")
        response = ua.TranslateBrowsePathsToNodeIdsResponse()
        for path in paths:
            node = path.StartingNode
            for step in path.RelativePath.Elements:
                assert not step.IsInverse
                assert step.IncludeSubtypes
                below = (own for _, own in self.below.get(node, ()))
                node = next((own for own in below if self.nodes[own][3] == step.TargetName), None)
            result = ua.BrowsePathResult(StatusCode=ua.StatusCode(NO_MATCH if node is None else 0))
            if node is not None:
                there = ua.ExpandedNodeId(node.Identifier, node.NamespaceIndex)
                result.Targets = [ua.BrowsePathTarget(there, ua.UInt32(0xFFFFFFFF))]
            response.Results.append(result)
        return response

    def _read(self, request):
        own = request.Parameters.NodesToRead
        self._check(own)
        response = ua.ReadResponse()
        response.Results = [self._value(one) for one in own]
        return response

    def _value(self, one):
        node = self.nodes.get(one.NodeId)
        if node is None or int(one.AttributeId) not in node:
            return ua.DataValue(StatusCode=ua.StatusCode(UNKNOWN if node is None else NO_ATTRIBUTE))
        held = node[int(one.AttributeId)]
        return ua.DataValue(held if isinstance(held, ua.Variant) else ua.Variant(held))


@pytest.fixture
def server():
    """One with nothing but its Objects folder."""
    return Server()
