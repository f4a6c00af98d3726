"""A witness of all that a queue was given, said and handed out, and the plant that it watches.

The witness knows nothing of how a queue works. It holds the queue to its word: what was called durable is handed to
every cursor that holds and had not acknowledged it, in order, exactly as it was, or a gap record tells of it; nothing
is told of falsely; no number is used twice. Whatever breaks that is a `BrokenWordError` with a sentence.
"""

import asyncio
import math
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache

from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.spool.record import Message, Note, Record


class BrokenWordError(AssertionError):
    """The queue did not keep its word."""


def content(record):
    """What a record says, comparable: type for type, and one quality for each value."""
    batch = record.batch
    if batch is None:
        return (record.kind, repr(record.other))
    qualities = [batch.quality] * len(batch.values) if isinstance(batch.quality, Quality) else list(batch.quality)
    index, times = (None if n is None else list(n) for n in (batch.index, batch.times))
    return (batch.group.hash, batch.time, repr(list(batch.values)), qualities, index, times)


@dataclass
class Entry:
    """A record that was appended.

    `is_stored`: it was called durable while somebody who holds had not acknowledged it. `is_excused`: it was not
    durable when its run was killed.
    """

    epoch: str
    content: tuple
    time: int
    is_durable: bool = False
    is_stored: bool = False
    is_excused: bool = False


@dataclass
class View:
    """A cursor, or its live lane, as the outside sees it: `acked` by it, `position` handed out last.

    It is owed what is above `born`, and was appended after the first `since` records of all, but for what is `free`:
    ranges that it has acknowledged on a lane of its own, or did not hold while its uplink was out of the file. Reading
    ends at `until`.
    """

    holds: bool
    born: int
    since: int
    acked: int = 0
    position: int = -1
    until: float = math.inf
    free: list = field(default_factory=list)
    is_away: bool = False

    def is_owed(self, seq):
        """Whether a record that was appended is its own, and not acknowledged."""
        return seq > max(self.born, self.acked) and not any(first <= seq <= last for first, last in self.free)


class Witness:
    """`causes`: of gaps, those that may occur with what is done to the queue, for cursors that hold.

    `is_damaged`: files were damaged by hand, so that records may be missing untold at the end of a run.
    """

    def __init__(self, *causes, is_damaged=False):
        self.causes = set(causes)
        self.is_damaged = is_damaged
        self.entries = {}
        self.seqs = []
        self.views = {}
        self.lanes = {}
        self.away = set()
        self.epochs = []
        self.run_from = 0
        self.gaps = 0

    # --- what happens to the queue ----------------------------------------------------------------------------------

    def started(self, epoch, known):
        """The queue was opened, in that epoch, and knows cursors of these names."""
        if epoch in self.epochs:
            raise BrokenWordError(f"epoch {epoch} is used a second time")
        self.epochs.append(epoch)
        self.run_from = len(self.seqs)
        self.lanes = {}
        for name, view in list(self.views.items()):
            view.position, view.until = -1, math.inf
            if name not in known:  # one that was made and not stored, for want of records
                self._lost(name, view, math.inf, "belongs to a cursor that is forgotten")
                del self.views[name]

    def appended(self, seq, record, time):
        """What that record says was taken under that number."""
        if self.seqs and seq <= self.seqs[-1]:
            self._begin_anew(seq)
        self.entries[seq] = Entry(self.epochs[-1], content(record), time)
        self.seqs.append(seq)

    def _begin_anew(self, seq):
        """A number comes a second time: only where nothing of what had it was ever stored, and under a new identity."""
        store = self.epochs[-1].split("-")[0]
        again = [known for known in self.seqs if known >= seq]
        is_same = any(self.entries[known].epoch.startswith(store) for known in again)
        if is_same or any(self.entries[known].is_stored for known in again):
            raise BrokenWordError(f"number {seq} after {self.seqs[-1]}: used twice, or out of order")
        for view in self.views.values():
            view.born, view.acked = min(view.born, seq - 1), min(view.acked, seq - 1)
        for known in again:
            del self.entries[known]
        self.seqs = self.seqs[: -len(again)]
        self.run_from = min(self.run_from, len(self.seqs))
        for view in self.views.values():
            view.since = min(view.since, len(self.seqs))

    def durable(self, seq):
        """The queue called everything of this run up to that number durable."""
        holders = [view for view in self.views.values() if view.holds]
        for known in reversed(self.seqs[self.run_from :]):
            entry = self.entries[known]
            if known <= seq and entry.is_durable:
                break
            if known <= seq:
                entry.is_durable, entry.is_stored = True, any(view.is_owed(known) for view in holders)

    def killed(self):
        """The run has ended at once: what was not durable may be lost without a word."""
        for seq in self.seqs[self.run_from :]:
            self.entries[seq].is_excused = not self.entries[seq].is_durable

    def cursor(self, name, position, *, holds, head):
        """A cursor was asked for, and stood there."""
        view = self.views.get(name)
        if view is None:
            # One that was forgotten is back where the power failed before that was stored; it is owed nothing.
            self.views[name] = View(holds, head, len(self.seqs), acked=position)
            return
        if view.holds and position > max(view.acked, view.born):
            self._lost(name, view, position + 1, f"is skipped: the cursor stands at {position}")
        view.holds = holds
        if view.is_away:
            view.is_away, view.free[-1] = False, (view.free[-1][0], head)

    def rewound(self, name, position):
        """A cursor went back to what it has acknowledged; what it said of that before a kill may be lost."""
        view = self.views[name]
        if position > max(view.acked, view.born):
            view.position = max(view.acked, view.born)
            self._lost(name, view, position + 1, f"is skipped: the cursor went back to {position} only")
        view.position, view.until = min(position, view.acked), math.inf
        self.lanes.pop(name, None)

    def parted(self, name, head, position):
        """From here on a cursor, back at `position`, reads what is up to `head`, and a lane of its own what comes."""
        self.rewound(name, position)
        view = self.views[name]
        view.until = head
        self.lanes[name] = View(view.holds, head, len(self.seqs), head, head)

    def retired(self, names, head):
        """The uplinks of these names, and no others, are in the file."""
        for name, view in self.views.items():
            if name in names or not view.holds:
                continue
            if not view.is_away:
                view.is_away = True
                view.free.append((head + 1, math.inf))
                self.away.add(name)
            view.free[-1] = (min(view.free[-1][0], head + 1), math.inf)

    def acked(self, name, seq):
        """That uplink has acknowledged everything up to the number."""
        view = self.views[name]
        view.acked = max(view.acked, seq)

    def acked_ahead(self, name, seq):
        """That uplink has acknowledged what it got on the lane, up to the number."""
        view, lane = self.views[name], self.lanes[name]
        lane.acked = max(lane.acked, seq)
        view.free.append((lane.born + 1, seq))
        if lane.born <= view.acked:
            view.acked = max(view.acked, seq)

    def forgotten(self, name):
        """A cursor was given up."""
        self.views.pop(name, None)
        self.lanes.pop(name, None)

    # --- what it hands out ------------------------------------------------------------------------------------------

    def handed(self, name, records, *, is_lane=False):
        """Check what a cursor was given."""
        view = self.lanes[name] if is_lane else self.views[name]
        for record in records:
            first = record.seq if record.gap is None else record.gap.first_seq
            if first <= view.position:
                raise BrokenWordError(f"{name} got {record} behind {view.position}")
            self._lost(name, view, first, f"is missing before {first}")
            if record.gap is None:
                self._check_batch(name, record)
            else:
                self._check_gap(name, view, record)
            view.position = record.seq

    def at_the_end(self, name, *, is_lane=False):
        """That cursor was told that there is no more: it must have got everything."""
        view = self.lanes[name] if is_lane else self.views[name]
        self._lost(name, view, view.until + 1, "never came")

    def _lost(self, name, view, below, what):
        """Whether anything that is owed stands between what was handed out last and `below`."""
        start = bisect_right(self.seqs, max(view.position, view.acked, view.born))
        for i in range(max(start, view.since), len(self.seqs)):
            seq = self.seqs[i]
            if seq >= below:
                return
            entry = self.entries[seq]
            is_owed = view.is_owed(seq) and (view.holds or i >= self.run_from)
            if is_owed and not entry.is_excused and not self.is_damaged:
                raise BrokenWordError(f"record {seq}, durable: {entry.is_durable}, {what}, for {name} {view}")

    def _check_batch(self, name, record):
        entry = self.entries.get(record.seq)
        if entry is None:
            raise BrokenWordError(f"{name} got {record}, which nobody appended")
        if record.epoch != entry.epoch or content(record) != entry.content:
            raise BrokenWordError(f"{name} got {record} in the place of {entry}")

    def _check_gap(self, name, view, record):
        gap = record.gap
        self.gaps += 1
        if gap.last_seq != record.seq or gap.first_seq > gap.last_seq or gap.count < 1:
            raise BrokenWordError(f"{name} got a gap that cannot be: {record}")
        start, stop = (bisect_right(self.seqs, seq) for seq in (gap.first_seq - 1, gap.last_seq))
        inside = [self.entries[seq] for seq in self.seqs[start:stop]]
        allowed = self.causes | ({"overtaken"} if name in self.away or not view.holds else set())
        owed = [seq for seq in self.seqs[start:stop] if view.is_owed(seq) and not self.entries[seq].is_excused]
        if inside and not owed:
            allowed.add("damaged")  # a frame torn by a power cut looks like one damaged later
        if gap.cause not in allowed:
            raise BrokenWordError(f"{name} is told {gap}, and there was no cause for it")
        if not inside and gap.cause not in ("damaged", "overtaken"):
            raise BrokenWordError(f"{name} is told {gap}, where there never was a record")
        # Of what was given up it may have had some, or gets some all the same: how many, nobody knows any more.
        most = len(self.seqs) - bisect_right(self.seqs, min(gap.first_seq - 1, view.acked))
        if gap.cause in ("evicted", "memory") and gap.count > most and name not in self.away:
            raise BrokenWordError(f"{name} is told {gap}, and there were {most}")
        times = [entry.time for entry in inside]
        if (
            times
            and gap.cause in ("evicted", "memory")
            and not gap.first_time <= min(times) <= max(times) <= gap.last_time
        ):
            raise BrokenWordError(f"{name} is told {gap}, of times from {min(times)} to {max(times)}")


NUMBERS = Definition("pump", ("flow", "state"), ("float32", "uint16"), ("m3/h", ""), (None, None))
TEXTS = Definition("pump", ("text", "state"), ("string", "uint16"), ("", ""), (None, None))
WIDE = Definition(
    "plc", tuple("abcdef"), ("float64", "int64", "bool", "string", "uint64", "object"), ("",) * 6, (None,) * 6
)


def dense(n, time):
    return Batch(NUMBERS, time, [n / 7, n % 65536])


def sparse(n, time):
    return Batch(WIDE, time, [-n, n % 2 == 0], [GOOD, bad("timeout")], [1, 2], [time - 5, time - n])


def odd(n, time):
    values = [math.nan, -(1 << 62), True, "ü\ud800", (1 << 64) - 1, {"n": [n, None, b"\x00\xff"]}]
    return Batch(WIDE, time, values, uncertain("nan"))


def none(n, time):
    return Batch(NUMBERS, time, [None, None], bad("offline"))


BATCHES = (dense, sparse, odd, none)


def message(n, time):
    return Message(f"plant/{n}", bytes([n % 256, 0, 255]) * (n % 9), 1, n % 2 == 0, time, b"\x26\x00\x01k\x00\x01v")


def note(n, time):
    return Note(time, "opened", {"n": n, "deep": [{"who": "nobody"}, None, 0.5]})


OTHERS = {"message": message, "event": note, "audit": note}


@cache
def noise(n, size):
    return random.Random(n).randbytes(size // 2).hex()


class Plant:
    """A queue on a simulated disk, worked from outside; every answer goes to the witness.

    `bench` is a `virtual_bench`; run it inside a virtual loop. Where `disk.is_off`, whoever works it should stop.
    """

    def __init__(self, bench, disk, witness, **limits):
        self.bench = bench
        self.disk = disk
        self.witness = witness
        self.limits = limits
        self.cursors = {}
        self.lanes = {}
        self.queue = None
        self.n = 0

    # --- its life -----------------------------------------------------------------------------------------------------

    async def open(self, **cursors):
        """Start, and ask for cursors by name: `fast=True` for one that holds."""
        for file in self.disk.names_now.values():
            file.is_suspect = False  # the kernel's marks, and ours, end with the process
        self.disk.handles.clear()
        self.queue = await self.bench.open(self.disk, **self.limits)
        self.cursors, self.lanes = {}, {}
        self.witness.started(self.queue.epoch, {cursor.name for cursor in self.queue.status().cursors})
        for name, holds in cursors.items():
            self.cursor(name, holds=holds)

    async def close(self):
        """Stop in order. Where the disk works, everything is durable then."""
        queue = self.queue
        await queue.close()
        self.queue = None
        if queue.status().state in ("ok", "full"):
            self.witness.durable(math.inf)
        self.witness.killed()

    def kill(self):
        """End the process at once; what the kernel has stays."""
        self.look()
        self.bench.abandon(self.queue)
        self.queue = None
        self.witness.killed()

    def cut(self, seed=0):
        """End the machine at once; what was not synced stays or does not."""
        self.kill()
        self.disk = self.disk.crash(seed)

    # --- the side that appends ----------------------------------------------------------------------------------------

    def append(self, size=0):
        """Append a record: of the next kind and shape in turn, or a batch of that many bytes that do not compress."""
        self.n += 1
        time, kinds = self.bench.clock.wall_ms(), (*BATCHES, *OTHERS)
        make = kinds[self.n % len(kinds)]
        if isinstance(make, str) and not size:
            other = OTHERS[make](self.n, time)
            self.witness.appended(self.queue.add(other, make), Record(0, "", None, make, other), time)
            return
        batch = Batch(TEXTS, time, [noise(self.n, size), self.n % 65536]) if size else make(self.n, time)
        self.witness.appended(self.queue.append(batch), Record(0, "", batch), time)

    async def durable(self, seconds=1.0):
        """Wait for durability, but not for ever: the disk may fail. Whether it was reached."""
        head = self.witness.seqs[-1] if self.witness.seqs else 0
        waiting = asyncio.ensure_future(self.queue.durable())
        await asyncio.wait([waiting], timeout=seconds)
        if waiting.done():
            self.witness.durable(head)
        else:
            waiting.cancel()
        self.look()
        return waiting.done() and not waiting.cancelled()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)
        self.look()

    def look(self):
        """Take the queue by its word."""
        self.witness.durable(self.queue.status().durable)

    # --- the side that reads ------------------------------------------------------------------------------------------

    def cursor(self, name, *, holds=True):
        cursor = self.cursors[name] = self.queue.cursor(name, holds=holds)
        self.witness.cursor(name, cursor.position, holds=holds, head=self.queue.status().head)

    def part(self, name):
        """Read what comes from now on by a lane of its own, beside what was there."""
        head, cursor = self.queue.status().head, self.cursors[name]
        cursor.rewind(head)
        self.lanes[name] = cursor.branch(head)
        self.witness.parted(name, head, cursor.position)

    def retire(self):
        """All cursors that there are to be have been asked for."""
        self.queue.retire()
        self.witness.retired(set(self.cursors), self.queue.status().head)

    async def read(self, name, n=None, *, is_lane=False):
        """Read the next `n` records, or all there are; nothing is acknowledged."""
        cursor, found = (self.lanes if is_lane else self.cursors)[name], []
        while n is None or len(found) < n:
            records = self.queue.take(cursor, 7 if n is None else n - len(found))
            if records is None:
                await self.queue.fetch(cursor, 7)
                continue
            self.witness.handed(name, records, is_lane=is_lane)
            found += records
            if not records:
                self.witness.at_the_end(name, is_lane=is_lane)
                break
        return found

    def ack(self, name, seq):
        """Acknowledge up to that number."""
        self.witness.acked(name, seq)
        self.queue.commit(self.cursors[name], seq)

    async def read_and_ack(self, name, *, behind=0):
        """Read all there is and acknowledge it but for the last few."""
        found = await self.read(name)
        if len(found) > behind:
            self.ack(name, found[len(found) - behind - 1].seq)

    async def read_and_ack_ahead(self, name, *, behind=0):
        """Likewise, on the lane."""
        found = await self.read(name, is_lane=True)
        if len(found) > behind:
            seq = found[len(found) - behind - 1].seq
            self.witness.acked_ahead(name, seq)
            self.queue.commit(self.lanes[name], seq)

    def rewind(self, name):
        self.lanes.pop(name, None)
        self.cursors[name].rewind()
        self.witness.rewound(name, self.cursors[name].position)

    def forget(self, name):
        self.queue.forget(name)
        self.cursors.pop(name, None)
        self.lanes.pop(name, None)
        self.witness.forgotten(name)
