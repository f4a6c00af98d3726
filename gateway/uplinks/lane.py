"""Lanes: the records of one stream on one connection, in order; what may be sent next, and what may be committed.

    queue ─take─▶ outbox ─publish─▶ under way ─PUBACK─▶ done ─commit, in order─▶ queue
                    ▲                   │ refused
                    └── after a wait ───┘

A stream (a queue of the spool) has one lane where all goes in order. Where what is new goes first it has two: `live`
begins behind what was there when the connection was made, `backlog` ends there. `again` sends once more what somebody
asked for, and commits nothing.

A record may travel in several publishes (parts, or a topic a tag). It is done when all of them are acknowledged, and
it is committed when every record before it in its lane is done too: acknowledgements may come in any order, the commit
passes no gap. A refused record holds its lane and no other: after a wait it is sent alone; when the server takes it,
the other refused ones follow in order. Only what the server calls wrong in itself (topic name, payload format, size) is
given up, after three tries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gateway.model import RecordClass
from gateway.spool.cursor import Cursor, Reading
from gateway.spool.record import Record
from gateway.spool.status import QueueStatus
from gateway.uplinks.message import Message
from gateway.uplinks.pacing import Bucket
from gateway.uplinks.reasons import reason, verdict
from gateway.uplinks.refusals import TRIES, Refusals

Kind: TypeAlias = Literal["in_order", "live", "backlog", "again"]

_SPAN = 4
"""Records held per publish in flight: bounds what can pile up behind one that is not acknowledged."""

_PATIENCE = 16
"""So many publishes of more important lanes may overtake one that waits; then it is its turn once."""


class Source(Protocol):
    """A queue of the spool as an uplink sees it. `head`: the number of its newest record."""

    @property
    def record_class(self) -> RecordClass:
        """What it holds."""

    @property
    def head(self) -> int:
        """The number of the last record accepted."""

    def take(self, reading: Reading, n: int) -> Sequence[Record] | None:
        """What is in memory behind the reading; empty: nothing new; None: it must be fetched."""

    async def fetch(self, reading: Reading, n: int) -> None:
        """Read on from the disk, so that `take` has something."""

    def commit(self, reading: Reading, seq: int) -> None:
        """Everything it handed out up to `seq` is acknowledged."""

    def notify(self, call: Callable[[], object]) -> None:
        """Call once when there is something new."""

    def timed(self, record: Record) -> Record:
        """The record with the times that are right, as far as they are known."""

    def status(self) -> QueueStatus:
        """How things stand."""


class Stream:
    """One queue, and where this uplink stands in it. Lives as long as the uplink."""

    def __init__(self, source: Source, cursor: Cursor) -> None:
        self.source = source
        self.cursor = cursor
        self._call: Callable[[], object] | None = None
        self._is_armed = False

    def __repr__(self) -> str:
        return f"<Stream {self.source.record_class}: {self.cursor!r}>"

    def listen(self, call: Callable[[], object] | None) -> None:
        """Call once when there is something new; None: nobody wants to know any more."""
        self._call = call
        if call is not None and not self._is_armed:
            self._is_armed = True
            self.source.notify(self._ring)

    def _ring(self) -> None:
        self._is_armed = False
        if self._call is not None:
            self._call()

    def waiting(self) -> tuple[int, float]:
        """About how many records it has not acknowledged, and the age of the oldest in seconds."""
        mine = next((c for c in self.source.status().cursors if c.name == self.cursor.name), None)
        return (0, 0.0) if mine is None else (mine.lag_records, mine.lag_s)


class Entry:
    """A record in its lane.

    `messages`: what is left of it to send, None before it is encoded; `whole`: nothing is. `size`: bytes of its last
    publish. `code`: how the server refused it, or 0, on `topic`; `tries`: how often it did. `replay`: it is backlog.
    `yields`: it may take no more than half of the window.
    """

    __slots__ = (
        "code",
        "lane",
        "messages",
        "properties",
        "qos",
        "record",
        "replay",
        "seq",
        "size",
        "topic",
        "tries",
        "unacked",
        "whole",
        "yields",
    )

    def __init__(self, lane: Lane, record: Record, *, replay: bool) -> None:
        self.lane = lane
        self.record = record
        self.seq = record.seq
        self.replay = replay
        self.yields = lane.yields
        self.messages: Iterator[Message] | None = None
        self.properties = b""
        self.qos = 0
        self.unacked = 0
        self.whole = False
        self.size = 0
        self.code = 0
        self.topic = ""
        self.tries = 0

    def __repr__(self) -> str:
        state = f"refused 0x{self.code:02X}" if self.code else "done" if self.is_done else f"{self.unacked} in flight"
        return f"<Entry {self.seq}: {state}>"

    @property
    def key(self) -> tuple[str, int]:
        """What names it among all records of the uplink."""
        return self.lane.stream.source.record_class, self.seq

    @property
    def device(self) -> str:
        """Of which device it tells; empty where of none."""
        return "" if self.record.batch is None else self.record.batch.group.device

    @property
    def is_done(self) -> bool:
        """Whether the server has all of it."""
        return self.whole and not self.unacked and not self.code

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is under way any more, be it taken or refused."""
        return self.whole and not self.unacked

    @property
    def values(self) -> int:
        """How many values it holds; what is no batch counts as one."""
        return len(self.record.batch.values) if self.record.batch is not None else 1

    def again(self) -> None:
        """Make ready to be sent from the start, as backlog."""
        self.messages = None
        self.whole = False
        self.replay = True
        self.code = 0


class Progress(NamedTuple):
    """What a lane committed: `records` above `above` up to `seq`; of these, `backlog` records with `values` values."""

    above: int
    seq: int
    records: int
    backlog: int
    values: int


class Lane:
    """One lane. Records up to `replay_until` are backlog: marked, not retained, and let through by `bucket` if any.

    Nothing is taken before `opens_at` (the loop's time). `yields`: it may use half of the window. `kick` is called when
    something may be sent that could not before. `time`: that of the record acknowledged last, where it sends again.
    """

    def __init__(
        self,
        stream: Stream,
        reading: Reading,
        kind: Kind,
        *,
        refusals: Refusals,
        kick: Callable[[], None],
        replay_until: int,
        bucket: Bucket | None = None,
        yields: bool = False,
        opens_at: float = 0.0,
    ) -> None:
        self.stream = stream
        self.reading = reading
        self.kind = kind
        self.bucket = bucket
        self.yields = yields
        self.opens_at = opens_at
        self.replay_until = replay_until
        self.is_alarm = stream.source.record_class == "alarm"
        self.is_patient = yields or stream.source.record_class == "diag"
        self.is_endless = kind in ("in_order", "live")
        self.passed_over = 0
        self.time: int | None = None
        self.outbox: deque[Entry] = deque()
        self.fetching: asyncio.Task[None] | None = None
        self.is_flooded = False
        self.is_holding = False
        self._refusals = refusals
        self._kick = kick
        self._entries: deque[Entry] = deque()
        self._passed = reading.position
        self._refused: list[Entry] = []
        self._probe: Entry | None = None
        self._retry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        name = f"{self.stream.source.record_class} {self.kind}"
        return f"<Lane {name}: {len(self._entries)} records{', holding' if self.is_holding else ''}>"

    # --- records out ------------------------------------------------------------------------------------------------

    def can_take(self, limit: int) -> bool:
        """Whether more records may be taken; `limit`: publishes that may be in flight."""
        return not self.outbox and not self.is_holding and len(self._entries) < limit * _SPAN and self.fetching is None

    def open(self, records: Sequence[Record], *, is_flooded: bool) -> None:
        """Take the next records; `is_flooded`: there are probably more at once."""
        self.is_flooded = is_flooded
        for record in records:
            entry = Entry(self, record, replay=record.seq <= self.replay_until)
            self._entries.append(entry)
            self.outbox.append(entry)

    @property
    def is_ready(self) -> bool:
        """Whether it has something to send, the window aside."""
        return bool(self.outbox) and (not self.is_holding or self.outbox[0] is self._probe)

    @property
    def is_overdue(self) -> bool:
        """Whether it was passed over so often that it is its turn. Asked once each time it is."""
        if self.is_patient:
            return False
        self.passed_over += 1
        return self.passed_over > _PATIENCE

    def wait_s(self, now: float) -> float:
        """Seconds until the next record may be sent, for its pace; 0: now."""
        entry = self.outbox[0]
        if self.bucket is None or not entry.replay or entry.messages is not None:
            return 0.0
        return self.bucket.wait_s(now)

    def finish(self, entry: Entry) -> None:
        """The entry at the head of the outbox has no more to send."""
        entry.whole = True
        self.outbox.popleft()

    # --- acknowledgements in ----------------------------------------------------------------------------------------

    def commit(self) -> Progress | None:
        """Let go of the records at the head that are done, and commit them; None where there are none."""
        if self._probe is not None and self._probe.is_done:
            self._release()
        entries = self._entries
        if not entries or not entries[0].is_done:
            return None
        above, seq, count, backlog, values = self._passed, 0, 0, 0, 0
        while entries and entries[0].is_done:
            entry = entries.popleft()
            seq = entry.seq
            count += 1
            if entry.replay:
                backlog += 1
                values += entry.values
        self._passed = seq
        if self.kind == "again":
            self.reading.after = seq
            self.time = entry.record.time
        else:
            self.stream.source.commit(self.reading, seq)
        return Progress(above, seq, count, backlog, values)

    @property
    def is_behind(self) -> bool:
        """Whether something of the backlog is not yet committed."""
        if self._entries:
            return self._entries[0].seq <= self.replay_until
        return self.reading.position < min(self.replay_until, self.reading.until)

    @property
    def is_over(self) -> bool:
        """Whether everything it was made for is committed."""
        return not self._entries and self.reading.is_done

    def end(self) -> None:
        """It is over: what it went through is acknowledged to the very end, also numbers that no record bears."""
        if self.kind == "backlog":
            self.stream.source.commit(self.reading, self.reading.until)

    # --- refusals ---------------------------------------------------------------------------------------------------

    def drop_rest(self, entry: Entry, topic: str, code: int) -> None:
        """Send no more of a refused record: it is sent again as a whole."""
        entry.code, entry.topic = code, topic
        if not entry.whole:
            entry.whole = True
            self.outbox.remove(entry)

    def hold(self, entry: Entry) -> None:
        """Stop the taking, and try the refused record again later, or never."""
        entry.tries += 1
        if entry is self._probe:
            self._probe = None
        if verdict(entry.code) == "hopeless" and entry.tries >= TRIES:
            self._refusals.skip(entry.topic, f"{reason(entry.code)}, {TRIES} times")
            entry.code = 0
            if not self._probe and not self._refused:
                self._release()
                return
        else:
            self._refused.append(entry)
        self.is_holding = True
        if self._retry is None and self._probe is None:
            wait_s = self._refusals.next_wait_s()
            self._retry = asyncio.get_running_loop().call_later(wait_s, self._try_again)

    def _try_again(self) -> None:
        """Send the first refused record alone."""
        self._retry = None
        self._refused.sort(key=_seq_of)
        self._probe = self._refused.pop(0)
        self._probe.again()
        self.outbox.appendleft(self._probe)
        self._kick()

    def _release(self) -> None:
        """The way is free: what else was refused goes first, in order."""
        self._probe = None
        self.is_holding = False
        self._refusals.relieved()
        for entry in sorted(self._refused, key=_seq_of, reverse=True):
            entry.again()
            self.outbox.appendleft(entry)
        self._refused.clear()
        asyncio.get_running_loop().call_soon(self._kick)

    def close(self) -> None:
        """Stop timers. What is not acknowledged stays in the spool."""
        if self._retry is not None:
            self._retry.cancel()


def _seq_of(entry: Entry) -> int:
    return entry.seq
