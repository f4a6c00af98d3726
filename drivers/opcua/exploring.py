"""The tree of a server, level by level: each node once, below the first parent that was met; for `headgate browse`.

Properties of variables (their limits, their units) are left out, and what is below the Server object, which every
server has, unless one starts there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from asyncua import ua

from drivers.opcua.address import parse
from drivers.opcua.nodes.asking import in_chunks
from drivers.opcua.nodes.browsing import METHOD, OBJECT, VARIABLE, Browser, Listing, Reference
from drivers.opcua.nodes.finding import Wanted, find_all
from drivers.opcua.nodes.kinds import Kinds, property_path
from drivers.opcua.nodes.naming import Names, joined
from drivers.opcua.nodes.requests import VALUE, attributes, code_of, content, translate
from drivers.opcua.nodes.resolving import address_of, describe
from drivers.opcua.nodes.units import symbol_of
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.parsing import parse_read
from drivers.opcua.values.status import name_of, quality_of
from gateway.driver import Explored, Extras, Node
from gateway.errors import DeviceError
from gateway.model import Value

if TYPE_CHECKING:
    from drivers.opcua.connecting.session import Session

_SLICE = 2000
"""So many nodes are looked below before what was found is handed on."""
_USUAL = 50
"""So many references of a node may be no news: properties, and nodes that were met before."""
_SERVER = ua.NodeId(ua.Int32(2253))
_NODE_CLASS, _BROWSE_NAME, _DESCRIPTION = 2, 3, 5
_READ, _WRITE = 1, 2
_KINDS: dict[int, Literal["object", "variable", "method"]] = {
    OBJECT: "object",
    VARIABLE: "variable",
    METHOD: "method",
}


class _Open(NamedTuple):
    """A node that must still be looked below: its position among all, and what the names of tags below begin with."""

    node: ua.NodeId
    position: int
    prefix: tuple[str, ...]
    is_variable: bool


class Explorer:
    """One walk through the tree of a server. `most` nodes are told of, and no more is asked then."""

    def __init__(self, session: Session, options: DeviceOptions, *, extras: Extras, most: int) -> None:
        self._session = session
        self._root = options.root
        self._timeout_s = options.timeout
        self._extras = extras
        self._most = most
        self._kinds = Kinds(session)
        self._names = Names()
        self._seen: set[ua.NodeId] = set()
        self._is_all = True

    async def walk(self, start: str, depth: int | None) -> AsyncIterator[Explored]:
        """The start first, then what is below, `depth` levels of it. Raises DeviceError, LineError."""
        node, first = await self._start(start)
        self._is_all = not start
        self._seen = {node}
        yield Explored(await self._completed([(node, first)]), 0, 1)
        count, asked, level = 1, 0, 0
        here = [_Open(node, 0, (), first.kind == "variable")]
        browser = Browser(session=self._session, mask=OBJECT | VARIABLE | METHOD)
        while here and (depth is None or level < depth):
            there: list[_Open] = []
            for at in range(0, len(here), _SLICE):
                part = here[at : at + _SLICE]
                most = self._most - count + _USUAL * len(part)
                listings = await browser.below([own.node for own in part], most=most)
                asked += len(part)
                found = self._sort(part, listings, count, there)
                is_cut = count + len(found) > self._most or any(listing.is_cut for listing in listings)
                found = found[: self._most - count]
                notes = tuple(self._refusals(part, listings))
                count += len(found)
                known = asked + len(here) - at - len(part) + len(there)
                yield Explored(await self._completed(found), asked, known, is_cut=is_cut, notes=notes)
                if is_cut:
                    return
            here, level = there, level + 1

    def _wrong(self, text: str) -> DeviceError:
        cure = "Begin further up: without --start the whole tree is shown, with --depth 1 its first level"
        return DeviceError(f"{self._session.line}: {text}. {cure}", cause="config")

    async def _start(self, start: str) -> tuple[ua.NodeId, Node]:
        """The node that one starts at. Raises DeviceError where there is none."""
        wanted = Wanted(self._root, 1, parse(start or self._root))
        outcome = (await find_all(self._session, [wanted]))[wanted]
        if not outcome.matches:
            raise self._wrong(f"'{start}' leads nowhere: {outcome.note or name_of(outcome.code)}")
        node = outcome.matches[0].node
        kind, name = await attributes(self._session, [(node, _NODE_CLASS), (node, _BROWSE_NAME)])
        number = content(kind, int)
        if number is None:
            raise self._wrong(f"'{start}' cannot be browsed: {name_of(code_of(kind))}")
        own = content(name, ua.QualifiedName)
        shown = (own.Name if own is not None else None) or str(node.Identifier)
        address = str(address_of(node, self._session.namespaces))
        found = Node(above=-1, name=shown, kind=_KINDS.get(number, "object"), address=address)
        return node, replace(found, tag=self._names.take(joined([shown]))) if number == VARIABLE else found

    def _sort(
        self, part: Sequence[_Open], listings: Sequence[Listing], count: int, there: list[_Open]
    ) -> list[tuple[ua.NodeId, Node]]:
        """The new ones among what is below these nodes; in `there` those that something may be below."""
        found: list[tuple[ua.NodeId, Node]] = []
        for own, listing in zip(part, listings, strict=True):
            for reference in listing.references:
                if reference.node in self._seen or (own.is_variable and reference.is_property):
                    continue
                self._seen.add(reference.node)
                path = (*own.prefix, reference.name)
                is_variable = reference.node_class == VARIABLE
                if (
                    reference.node_class in (OBJECT, VARIABLE)
                    and not reference.is_property
                    and reference.node != _SERVER
                ):
                    there.append(_Open(reference.node, count + len(found), path, is_variable))
                found.append((reference.node, self._node(own, reference, path)))
        return found

    def _node(self, own: _Open, reference: Reference, path: tuple[str, ...]) -> Node:
        is_tag = reference.node_class == VARIABLE and not reference.is_property
        if self._is_all and reference.node.NamespaceIndex == 0:  # the standard's own: who wants it, starts there
            is_tag = False
        return Node(
            above=own.position,
            name=reference.name,
            kind="property" if reference.is_property else _KINDS.get(reference.node_class, "object"),
            address=str(address_of(reference.node, self._session.namespaces)),
            tag=self._names.take(joined(path)) if is_tag else "",
        )

    def _refusals(self, part: Sequence[_Open], listings: Sequence[Listing]) -> list[str]:
        """What could not be looked below, and why."""
        return [
            f"{address_of(own.node, self._session.namespaces)} cannot be looked below: {name_of(listing.code)}"
            for own, listing in zip(part, listings, strict=True)
            if listing.code
        ]

    # --- what is told of each variable ------------------------------------------------------------------------------

    async def _completed(self, found: Sequence[tuple[ua.NodeId, Node]]) -> list[Node]:
        """The nodes, with what was asked for."""
        nodes = [node for _, node in found]
        variables = [i for i, node in enumerate(nodes) if node.kind in ("variable", "property")]
        ids = [found[i][0] for i in variables]
        if self._extras.details:
            for i, own in zip(variables, await self._details([nodes[i] for i in variables], ids), strict=True):
                nodes[i] = own
        if self._extras.values:
            for i, own in zip(variables, await self._values([nodes[i] for i in variables], ids), strict=True):
                nodes[i] = own
        return nodes

    async def _details(self, nodes: Sequence[Node], ids: Sequence[ua.NodeId]) -> list[Node]:
        """Type, shape, access, unit and description."""
        facts = await describe(self._session, ids, self._kinds, timeout_s=self._timeout_s)
        descriptions = await attributes(self._session, [(node, _DESCRIPTION) for node in ids])
        units = await self._units(ids)
        completed = []
        for node, own, (known, _), description in zip(nodes, ids, facts, descriptions, strict=True):
            text = content(description, ua.LocalizedText)
            completed.append(
                replace(
                    node,
                    type=known.type,
                    is_list=known.rank >= 0,
                    choices=tuple((known.labels or {}).values()),
                    is_readable=bool(known.access & _READ),
                    is_writable=bool(known.access & _WRITE),
                    unit=units.get(own, ""),
                    description=(text.Text or "") if text is not None else "",
                )
            )
        return completed

    async def _units(self, ids: Sequence[ua.NodeId]) -> dict[ua.NodeId, str]:
        """The symbols of the engineering units of those that have one [Part 8 5.3.2.3]."""
        path = property_path("EngineeringUnits")
        targets = await translate(self._session, [(node, path) for node in ids])
        there = [(node, target) for node, (target, _) in zip(ids, targets, strict=True) if target is not None]
        values = await attributes(self._session, [(target, VALUE) for _, target in there])
        units = {}
        for (node, _), value in zip(there, values, strict=True):
            unit = content(value, ua.EUInformation)
            if unit is not None:
                units[node] = symbol_of(unit)
        return units

    async def _values(self, nodes: Sequence[Node], ids: Sequence[ua.NodeId]) -> list[Node]:
        """The values now, with their qualities."""

        async def ask(chunk: Sequence[ua.NodeId]) -> list[tuple[Value, int]]:
            request = ua.ReadRequest()
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
            request.Parameters.NodesToRead = [
                ua.ReadValueId(NodeId=node, AttributeId=ua.UInt32(VALUE)) for node in chunk
            ]
            body = await self._session.fetch(request, timeout_s=self._timeout_s)
            try:
                columns = await self._session.structures.parsed(parse_read, body, self._session)
            except ValueError as error:
                raise DeviceError(f"values cannot be read: {error}", cause="decode") from error
            return list(zip(columns.values, columns.codes, strict=True))

        limit = self._session.limits.max_nodes_per_read
        values = await in_chunks(ids, limit, ask, lambda code: (None, code))
        return [
            replace(node, value=value, quality=quality_of(code))
            for node, (value, code) in zip(nodes, values, strict=True)
        ]
