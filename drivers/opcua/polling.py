"""Asking for values: a group at a time, by Read [Part 4 5.11.2]. The alternative to being told of changes.

A group is read in as few requests as the server takes, several of them under way at once. Nodes that are not there are
not asked for; what is refused alone is None with the server's reason as its quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncua import ua as _ua

from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import TOO_MUCH, in_chunks
from drivers.opcua.nodes.known import Known
from drivers.opcua.plan import options_of
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.columns import Columns
from drivers.opcua.values.parsing import parse_read
from drivers.opcua.values.samples import Finisher
from drivers.opcua.values.status import is_bad, name_of
from gateway.clock import Clock
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.model import Batch, Device, ScanGroup, Value

if TYPE_CHECKING:
    from drivers.opcua.connecting.session import Session
    from drivers.opcua.nodes.catalogue import Catalogue

ua: Any = _ua  # its names are made at run time: no checker sees them

_MOST_PLANS: Final = 1000
_LEAST: Final = 16
"""Fewer nodes are asked for at a time only where more were refused just then: one of them may be too large alone."""
_Row: TypeAlias = tuple[Value, int, int, int]


class Poller:
    """Reads groups, and asks whether the server is there."""

    def __init__(self, session: Session, catalogue: Catalogue, *, clock: Clock, metrics: Metrics) -> None:
        self._session = session
        self._catalogue = catalogue
        self._clock = clock
        self._belief = Belief(clock, metrics.counter("opcua_absurd_times_total", line=session.line))
        self._plans: dict[ScanGroup, _Plan] = {}

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once. Raises DeviceError where the server refuses, LineError when the link is gone."""
        plan = self._plan_of(group)

        async def ask(wanted: Sequence[Any]) -> Sequence[_Row]:
            try:
                return await self._rows(group.device, wanted, group.plan.options.timeout)
            except ServiceFault as fault:
                if fault.code in TOO_MUCH:  # the next poll need not find out again
                    plan.most = min(plan.most, max(_LEAST, len(wanted) // 2))
                raise

        def refuse(code: int) -> _Row:
            if code in TOO_MUCH:
                return None, code, 0, 0  # of one node alone: no other need suffer from it
            raise _refused(group.device, name_of(code))

        rows = await in_chunks(plan.wanted, min(self._session.limits.max_nodes_per_read, plan.most), ask, refuse)
        arrival = self._clock.wall_ms()
        return plan.finisher.batch(plan.columns(rows), arrival)

    async def probe(self, device: Device) -> None:
        """Ask for the server's state. Raises DeviceError where it refuses, LineError when the link is gone."""
        state = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
        try:
            ((_, code, _, _),) = await self._rows(device.name, [_wanted(Known(node=state))], options_of(device).timeout)
        except ServiceFault as fault:
            raise _refused(device.name, fault.name) from fault
        if is_bad(code):
            raise _refused(device.name, name_of(code))

    async def _rows(self, device: str, wanted: Sequence[Any], timeout_s: float) -> list[_Row]:
        """One Read: value, status, source and server time of each node."""
        request = ua.ReadRequest()
        request.Parameters.MaxAge = 0
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = wanted
        body = await self._session.fetch(request, timeout_s=timeout_s)
        try:
            found = await self._session.structures.parsed(parse_read, body, self._session)
        except ValueError as error:
            raise DeviceError(f"{device}: {error}", cause="decode") from error
        if len(found.values) != len(wanted):
            text = f"{device}: the server answered {len(found.values)} values where {len(wanted)} were asked for"
            raise DeviceError(text, cause="decode")
        return list(zip(found.values, found.codes, found.source, found.server, strict=True))

    def _plan_of(self, group: ScanGroup) -> _Plan:
        known = self._catalogue.known(group)
        plan = self._plans.get(group)
        if plan is None or plan.known is not known:
            if len(self._plans) >= _MOST_PLANS:  # of groups of former sessions
                self._plans.clear()
            plan = self._plans[group] = _Plan(group, known, Finisher(group, known, self._belief))
        return plan


class _Plan:
    """How a group is read in this session: which nodes, `most` of them at a time, and where their values stand."""

    def __init__(self, group: ScanGroup, known: Sequence[Known], finisher: Finisher) -> None:
        self.known = known
        self.finisher = finisher
        self.most = len(known)
        ranges = [item.options.index_range for item in group.plan.items]
        self.wanted = [_wanted(node, part) for node, part in zip(known, ranges, strict=True) if node.node is not None]
        self._missing = [(at, node.code) for at, node in enumerate(known) if node.node is None]

    def columns(self, rows: list[_Row]) -> Columns:
        """The answers in the group's order, with those nodes between them that could not be asked for."""
        for at, code in self._missing:
            rows.insert(at, (None, code, 0, 0))
        values, codes, source, server = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
        return Columns([], values, codes, source, server)


def _wanted(known: Known, index_range: str | None = None) -> Any:
    """What is read of a node: its value, or a part of it [Part 4 7.29]."""
    wanted = ua.ReadValueId()
    wanted.NodeId = known.node
    wanted.AttributeId = ua.AttributeIds.Value
    wanted.IndexRange = index_range
    return wanted


def _refused(device: str, name: str) -> DeviceError:
    return DeviceError(f"{device}: the server refused to read: {name}", cause=name)
