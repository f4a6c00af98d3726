"""What is known of each monitored item of one subscription: what it was asked for, and what it told last. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.opcua.listening.assembling import Cut, Layout
from drivers.opcua.nodes.known import Known
from drivers.opcua.plan import Item
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.columns import OVERFLOW, Columns
from drivers.opcua.values.samples import Finisher
from gateway.model import Batch, ScanGroup, Value

FULL, TRIGGER, NONE = 2, 1, 0
"""How much of the filter the server is asked for: all of it, without its deadband, nothing."""
_NUMERIC: Final = frozenset((0, *range(2, 12)))
"""Built-in types that a deadband means something for [Part 6 5.1.2]; 0 is not known, and may be such."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Values of one item that were not told: those between two source times, in ticks, without `told` of the first."""

    handle: int
    after: int
    before: int
    told: tuple[tuple[Value, int], ...] = ()


class Items:
    """The items of some groups, by client handle. What is told last outlives the subscription on the server.

    `sampling_s` and `queues` are what the server made of the wishes. `status`: the StatusCode with which it refused an
    item, 0 where it did not; `server_ids` are its own numbers, 0 for none. `heard`: monotonic seconds when something
    was told last, of `values`, `codes`, `source` and `server` (times in ticks).
    """

    def __init__(self, groups: Sequence[ScanGroup], known: Sequence[Sequence[Known]], belief: Belief) -> None:
        self.groups = tuple(groups)
        self.layout = Layout([len(group.tags) for group in groups])
        self.plans: list[Item] = [item for group in groups for item in group.plan.items]
        self._belief = belief
        self.known: list[Known] = []
        self.adopt(known)
        count = self.layout.total
        self.values: list[Value] = [None] * count
        self.codes = [0] * count
        self.source = [0] * count
        self.server = [0] * count
        self.heard = [0.0] * count
        self.sampling_s = [item.sampling_ms / 1000 for item in self.plans]
        self.queues = [item.queue for item in self.plans]
        self.filters = [FULL] * count
        self.server_ids = [0] * count
        self.status = [0] * count

    def __len__(self) -> int:
        return self.layout.total

    def adopt(self, known: Sequence[Sequence[Known]]) -> bool:
        """Take what is known of the nodes in this session; returns whether they are the same nodes as before."""
        former = [node.node for node in self.known]
        self.known = [node for nodes in known for node in nodes]
        self.finishers = [Finisher(group, nodes, self._belief) for group, nodes in zip(self.groups, known, strict=True)]
        return former == [node.node for node in self.known]

    def names(self) -> list[tuple[str, str]]:
        """Device and tag of each item."""
        return [(group.device, item.tag.name) for group in self.groups for item in group.plan.items]

    def name(self, handle: int) -> str:
        """The item in words."""
        group = self.groups[self.layout.group_of(handle)]
        return f"{group.device}: tag '{self.plans[handle].tag.name}'"

    def told(self, handle: int) -> int:
        """The source time in ticks of what was told last, the server's where the source gave none; 0 for nothing."""
        return self.source[handle] or self.server[handle]

    def has_history(self, handle: int) -> bool:
        """Whether what is missed of an item can be had later."""
        known = self.known[handle]
        return known.node is not None and known.has_history

    def forget_server(self) -> None:
        """The server has none of these items any more."""
        self.server_ids = [0] * len(self)
        self.status = [0] * len(self)

    def inherit(self, former: Items, heirs: Mapping[int, int]) -> None:
        """Take over what was told of the same tags under other handles: new handles by former ones."""
        for old, new in heirs.items():
            self.values[new], self.codes[new] = former.values[old], former.codes[old]
            self.source[new], self.server[new] = former.source[old], former.server[old]
            self.heard[new] = former.heard[old]

    # --- what was told ---

    def note(self, cut: Cut, now: float) -> None:
        """Remember what was told last."""
        columns = cut.columns
        if cut.index is None:
            start, end = self.layout.starts[cut.group], self.layout.starts[cut.group + 1]
            self.values[start:end] = columns.values
            self.codes[start:end] = columns.codes
            self.source[start:end] = columns.source
            self.server[start:end] = columns.server
            self.heard[start:end] = [now] * (end - start)
            return
        values, codes, source, server, heard = self.values, self.codes, self.source, self.server, self.heard
        rows = zip(columns.handles, columns.values, columns.codes, columns.source, columns.server, strict=True)
        for handle, value, code, measured, served in rows:
            values[handle] = value
            codes[handle] = code
            source[handle] = measured
            server[handle] = served
            heard[handle] = now

    def gaps_before(self, cut: Cut, missed: set[int]) -> list[Gap]:
        """The gaps that end with these values: of items in `missed`, which are taken out of it."""
        found = []
        columns = cut.columns
        for handle, measured, served in zip(columns.handles, columns.source, columns.server, strict=True):
            tick = measured or served
            if tick and handle in missed:
                missed.discard(handle)
                found.append(Gap(handle, self.told(handle), tick))
        return found

    def overflows(self, cut: Cut) -> list[Gap]:
        """The gaps before values whose predecessors the server's queue had no room for [Part 4 7.39.1]."""
        columns = cut.columns
        return [
            Gap(handle, self.told(handle), measured or served)
            for handle, code, measured, served in zip(
                columns.handles, columns.codes, columns.source, columns.server, strict=True
            )
            if code & OVERFLOW == OVERFLOW
        ]

    def is_told(self, handle: int, columns: Columns, row: int) -> bool:
        """Whether that row is what the item told last, with the same time."""
        tick = columns.source[row] or columns.server[row]
        is_same = tick and tick == self.told(handle) and columns.codes[row] == self.codes[handle]
        return bool(is_same) and repr(columns.values[row]) == repr(self.values[handle])  # as text NaN is like NaN

    # --- as batches ---

    def batch(self, cut: Cut, arrival: int) -> Batch:
        """A batch of values that came at that wall time, in ms."""
        return self.finishers[cut.group].batch(cut.columns, arrival, cut.index)

    def restated(self, since: float, arrival: int) -> list[Batch]:
        """What was told last of all items that the server has and that told nothing since then (monotonic)."""
        handles = [h for h in range(len(self)) if self.server_ids[h] and 0 < self.heard[h] < since]
        columns = Columns(
            handles,
            [self.values[h] for h in handles],
            [self.codes[h] for h in handles],
            [self.source[h] for h in handles],
            [self.server[h] for h in handles],
        )
        return [self.batch(cut, arrival) for cut in self.layout.cut(columns)[0]]

    def refused(self, handles: Sequence[int], arrival: int) -> list[Batch]:
        """No value, and the reason, for items that the server does not have."""
        nothing = [0] * len(handles)
        columns = Columns(list(handles), [None] * len(handles), [self.status[h] for h in handles], nothing, nothing)
        return [self.batch(cut, arrival) for cut in self.layout.cut(columns)[0]]

    # --- the filter ---

    def has_deadband(self, handle: int) -> bool:
        """Whether the server is asked to keep small changes to itself."""
        item, known = self.plans[handle], self.known[handle]
        if item.deadband is None or self.filters[handle] < FULL:
            return False
        return known.builtin in _NUMERIC and known.labels is None

    def weaken(self, handle: int) -> bool:
        """The server refused the filter: ask for less of it. Returns whether there is less."""
        has_trigger = self.plans[handle].options.trigger != "value"
        if self.has_deadband(handle):
            self.filters[handle] = TRIGGER if has_trigger else NONE
            return True
        if has_trigger and self.filters[handle] > NONE:
            self.filters[handle] = NONE
            return True
        return False
