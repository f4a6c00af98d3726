"""What was missed while nobody listened, read from what the server remembers: exactly the gap, in order, once.

A gap is read in windows of time, all tags of a window before the next one, each window as long as its values fit into
memory: so what comes out is in order of time, however long the gap and however many the tags. A window that holds more
than was thought is handed on in parts; then only the values of each tag are in order.

The newest values may not have reached the server's store yet. Where the history of a tag ends long before the value
that came live, it is read again after a moment. What is missing even then is counted and said.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from drivers.opcua.connecting.session import Session
from drivers.opcua.listening.history import Ask, History, Piece, Sample, Told, Trail
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.columns import TICKS_PER_MS, Columns
from drivers.opcua.values.samples import Finisher
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model import Batch, ScanGroup

log = logging.getLogger("headgate.opcua")

_LEAST_WINDOW, _MOST_WINDOW = 5_000, 20_000
"""How many values a window should have; twice as many are handed on before it is read to its end."""
_A_NODE = 20
"""How many of them of one node: to name a node in a request costs as much as ten values."""
_MOST_NODES = 200
_SLICE = 1000
"""After so many values others have a turn."""
_PATIENCE = 3
"""How many times the device's `timeout` an answer may take: history is read from disks."""
_RETRIES_S: Final = (1.0, 2.0)
_FRESH: Final = 60_000 * TICKS_PER_MS
"""A gap that ended so long before the others has reached every store."""
_LATE, _SURE = 2.5, 1.5
"""Times the usual, and the longest time between two values: without a value for so long one is late, or missing."""
_SAY_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Span:
    """A gap of one tag. `after`, `before`: source times of the values on both sides, in ticks; they are not in it.

    `told` are values at its first tick that went out already: others of that time may not have.
    """

    group: ScanGroup
    position: int
    known: Known
    after: int
    before: int
    told: Told = ()


class Gaps:
    """Reads gaps from the history of the nodes that have one. What a server refused is known until `forget`.

    `left` is what the last `fill` did not get to, because the link was lost or it was closed: for another time.
    """

    def __init__(self, session: Session, options: DeviceOptions, *, clock: Clock, metrics: Metrics) -> None:
        self._session = session
        self._clock = clock
        self._metrics = metrics
        self._history = History(session, patience_s=_PATIENCE * options.timeout, metrics=metrics)
        self._values = metrics.counter("opcua_history_values_total", line=session.line)
        self._cut = metrics.counter("opcua_history_cut_total", line=session.line)
        self._dropped = metrics.counter("opcua_history_dropped_total", line=session.line)
        self._belief = Belief(clock, metrics.counter("opcua_absurd_times_total", line=session.line))
        self._said: dict[str, float] = {}
        self.left: tuple[Span, ...] = ()

    def forget(self) -> None:
        """The session is a new one: what the last one refused is tried again."""
        self._history.forget()

    async def fill(self, spans: Sequence[Span]) -> AsyncIterator[Batch]:
        """What the server remembers of these gaps. Raises LineError; closed early it releases what the server holds.

        Batches have `is_history`; what comes of one tag ascends, and no value comes twice.
        """
        self.left = ()
        fields = self._fields(spans)
        if not fields:
            return
        self._history.begin(is_both=any(field.is_both for field in fields))
        filling = _Filling(self._history, fields, self._session.limits.max_history_nodes)
        try:
            while not filling.is_done:
                await filling.step()
                handed = 0
                for batch in (batch for field in fields for batch in field.batches(self._clock.wall_ms())):
                    self._values.value += len(batch.values)
                    handed += len(batch.values)
                    yield batch
                    if handed >= _SLICE:
                        handed = 0
                        await asyncio.sleep(0)
        finally:
            self.left = filling.left()
            self._tell(filling)
            await self._history.release()

    def _fields(self, spans: Sequence[Span]) -> list[_Field]:
        """The gaps that may be read, by group, none of them longer than `max_history`."""
        found: dict[tuple[int, int], _Field] = {}
        turns: Counter[tuple[int, int]] = Counter()
        wall = self._clock.wall_ms()
        cut = 0
        for span in spans:
            options = span.group.plan.options
            if options.history == "off" or not span.known.has_history or not 0 < span.after < span.before - 1:
                continue
            if not self._belief.holds(span.before, span.before, wall):
                self._count("clock", 1)  # where the gap ends nobody knows
                continue
            part = span.group.plan.items[span.position].options.index_range
            if refusal := self._history.refusal(span.known.node, part):
                self._count(refusal, 1)
                continue
            after = max(span.after, span.before - round(options.max_history * 1000) * TICKS_PER_MS)
            cut += after > span.after
            turn = turns[id(span.group), span.position]  # a tag has more than one where an earlier one was left
            turns[id(span.group), span.position] += 1
            field = found.get((id(span.group), turn))
            if field is None:
                field = found[id(span.group), turn] = _Field(span.group, self._belief)
            told = span.told if after == span.after else ()
            field.add(Trail(span.known.node, part, span.position, after, span.before, after, told), span.known)
        if cut:
            self._cut.value += cut
            self._say("cut", f"the gap of {cut} tags is longer than max_history: what is older than that is left out")
        return list(found.values())

    def _tell(self, filling: _Filling) -> None:
        """Count what could not be read, and say it in a line."""
        causes = Counter(cause for _, trail in filling.trails if (cause := filling.verdict(trail)))
        for cause, tags in causes.items():
            self._count(cause, tags)
        self._dropped.value += sum(trail.late for _, trail in filling.trails)
        if causes:
            field, trail = next((f, t) for f, t in filling.trails if filling.verdict(t))
            said = ", ".join(f"{cause} ({tags} tags)" for cause, tags in causes.most_common(5))
            first = f"{field.group.device}/{field.group.names[trail.position]}"
            self._say("unfilled", f"the gap is not filled from history throughout: {said}; the first is {first}")

    def _count(self, cause: str, tags: int) -> None:
        self._metrics.counter("opcua_history_unfilled_total", line=self._session.line, cause=cause).value += tags

    def _say(self, what: str, text: str) -> None:
        now = self._clock.monotonic()
        if now - self._said.get(what, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[what] = now
            log.warning("%s: %s", self._session.line, text)


class _Field:
    """Gaps of one group, none of a tag twice, and how what is found becomes batches."""

    def __init__(self, group: ScanGroup, belief: Belief) -> None:
        options = group.plan.options
        self.group = group
        self.trails: list[Trail] = []
        self.is_both = options.server_times or options.time == "server"
        self._belief = belief
        self.known = [Known(node=None)] * len(group.tags)
        self._places: dict[int, Trail] = {}

    def add(self, trail: Trail, known: Known) -> None:
        """A gap more."""
        self.trails.append(trail)
        self._places[trail.position] = trail
        self.known[trail.position] = known

    def batches(self, arrival: int) -> Iterator[Batch]:
        """What was found since the last time, in order of time: a tag that comes again begins the next batch."""
        rows = [sample for trail in self.trails if trail.found for sample in trail.settle()]
        rows.sort(key=itemgetter(0))
        finisher = Finisher(self.group, self.known, self._belief)
        taken: dict[int, Sample] = {}
        for row in rows:
            if row[1] in taken:
                yield self._batch(finisher, taken, arrival)
                taken = {}
            taken[row[1]] = row
        if taken:
            yield self._batch(finisher, taken, arrival)

    def _batch(self, finisher: Finisher, taken: dict[int, Sample], arrival: int) -> Batch:
        for at, row in taken.items():
            self._places[at].hand(row)
        source, index, values, codes, server = map(list, zip(*(taken[at] for at in sorted(taken)), strict=True))
        columns = Columns([], values, codes, source, server)
        whole = len(index) == len(self.group.tags)
        return finisher.batch(columns, arrival, None if whole else index, is_history=True)


class _Filling:
    """One call of `fill`: window after window, and what is late once more."""

    def __init__(self, history: History, fields: Sequence[_Field], most_nodes: int) -> None:
        self.trails = [(field, trail) for field in fields for trail in field.trails]
        self.is_done = False
        self._history = history
        self._fields = fields
        self._most_nodes = min(most_nodes, _MOST_NODES)
        self._enough = max(_LEAST_WINDOW, min(_MOST_WINDOW, _A_NODE * len(self.trails)))
        a_second = sum(len(field.trails) / field.group.every_s for field in fields)
        self._width = max(1, round(self._enough / a_second * 1000)) * TICKS_PER_MS
        self._found = 0
        self._retries = list(_RETRIES_S)
        self._work: deque[Ask] = deque()
        self._open([trail for _, trail in self.trails])

    async def step(self) -> None:
        """Read on. What came of it, which may be nothing, the fields have."""
        if self._work or self._next_window():
            await self._history.read(self._work, 2 * self._enough)
            self._found += self._history.found
        else:
            await self._wait_for_late()

    def verdict(self, trail: Trail) -> str:
        """Why a gap is not filled, as far as can be told; empty where it is."""
        if trail.cause:
            return trail.cause
        if not self.is_done:
            return "unfinished" if self._is_left(trail) else ""
        if trail.count > 1 and _is_long(trail, trail.before - trail.edge):
            return "late"
        if trail.count > 2 and _is_long(trail, trail.first - trail.after):
            return "forgotten"
        return trail.doubt

    def _open(self, trails: list[Trail]) -> None:
        """Begin to read these, from the oldest on."""
        self._due = trails
        self._open_now = frozenset(trails)
        self._is_begun = False
        self._start = self._at = min(trail.start for trail in trails)
        self._end = max(trail.before for trail in trails)

    def _next_window(self) -> bool:
        """Ask for the next stretch of time that has something in it; False where there is none."""
        if self._is_begun:
            self._width = max(1, round(self._width * max(0.25, min(4.0, self._enough / max(1, self._found)))))
        self._is_begun, self._found = True, 0
        while self._at < self._end and not self._work:
            self._start, self._at = self._at, min(self._at + self._width, self._end)
            pieces = [
                Piece(trail, start, end, end)
                for trail in self._due
                if (start := max(self._start, trail.start)) < (end := min(self._at, trail.before)) and not trail.cause
            ]
            self._work += (Ask.of(pieces[at : at + self._most_nodes]) for at in range(0, len(pieces), self._most_nodes))
        return bool(self._work)

    async def _wait_for_late(self) -> None:
        """All was asked for. Where values must have been made that are not in the store yet: wait and begin again."""
        newest = max(trail.before for trail in self._due)
        late = []
        if self._retries:
            late = [t for f, t in self.trails if not t.cause and newest - t.before < _FRESH and self._is_late(f, t)]
        if not late:
            self.is_done = True
            return
        await asyncio.sleep(self._retries.pop(0))
        self._open(late)

    def _is_late(self, field: _Field, trail: Trail) -> bool:
        """Whether values may be missing at the end: by how often there were any, or at first could have been."""
        rest = trail.before - trail.edge
        if trail.count:
            return rest > _LATE * (trail.edge - trail.after) / trail.count
        sampling_ms = field.group.plan.items[trail.position].sampling_ms or field.group.every_s * 1000
        return len(self._retries) == len(_RETRIES_S) and rest > _LATE * sampling_ms * TICKS_PER_MS

    def left(self) -> tuple[Span, ...]:
        """What was not read because the end came before it."""
        if self.is_done:
            return ()
        found = []
        for field, trail in self.trails:
            if self._is_left(trail):
                after, told = trail.left()
                position = trail.position
                found.append(Span(field.group, position, field.known[position], after, trail.before, told))
        return tuple(found)

    def _is_left(self, trail: Trail) -> bool:
        return not trail.cause and trail in self._open_now and trail.before > self._start


def _is_long(trail: Trail, ticks: int) -> bool:
    """Whether a tag with so many values would have had one in that time."""
    usual = (trail.edge - trail.first) / (trail.count - 1)
    return ticks > _LATE * usual and ticks > _SURE * trail.widest
