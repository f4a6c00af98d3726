"""Handing out: the next records for a reading, from memory where they are there, else from the disk.

What lies in the window is taken as it is, without waiting; what has left it is read ahead from the journal, in the
reading thread. Acknowledged ranges and times away are stepped over, losses are told in their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.spool.backlog import Backlog, Fetched, Request
from gateway.spool.cursor import Reading, Span
from gateway.spool.islands import outside
from gateway.spool.losses import Losses, gap_between
from gateway.spool.record import Gap, Record, gap_record
from gateway.spool.store import Store
from gateway.spool.timekeeper import Timekeeper
from gateway.spool.window import Window

_MOST_LOOKS = 64


class HandingOut:
    """Serves the readings of one queue, and reads in the thread of its store that is there for that.

    `tell_evicted` has the cursors told of all that was given up until now.
    """

    def __init__(
        self, window: Window, store: Store, timekeeper: Timekeeper, *, epoch: str, tell_evicted: Callable[[], None]
    ) -> None:
        self._window = window
        self._backlog = Backlog(store.reader)
        self._thread = store.reading
        self._timekeeper = timekeeper
        self._timeline = timekeeper.timeline
        self._epoch = epoch
        self._first = store.writer.epoch_first
        self._tell_evicted = tell_evicted

    def take(self, reading: Reading, n: int) -> Sequence[Record] | None:
        """The next records, at most `n`, as far as they are in memory; advances the reading's `position`.

        Empty: nothing new, or nothing more. None: they must be fetched from the disk.
        """
        position = reading.position
        if reading.ahead:
            return self._take_ahead(reading, n)
        if position >= reading.stop:
            return self._take_on(reading, n)
        if position >= self._window.head:
            return []
        found = self._window.after(position, n)
        if found:
            if found[0].gap is not None or found[-1].seq > reading.stop:
                found = _between(found, position, reading.stop)
                if not found:
                    reading.position = reading.stop
                    return self._take_on(reading, n)
            reading.position = found[-1].seq
        return found

    def _take_ahead(self, reading: Reading, n: int) -> Sequence[Record] | None:
        """Hand out what was read from the disk."""
        ahead = reading.ahead
        while ahead and ahead[0].seq <= reading.position:
            ahead.popleft()
        found = [ahead.popleft() for _ in range(min(n, len(ahead)))]
        if not found:
            return self.take(reading, n)
        reading.position = found[-1].seq
        return found

    def _take_on(self, reading: Reading, n: int) -> Sequence[Record] | None:
        """Go on behind what must be stepped over."""
        position = reading.position
        if position >= reading.until:
            return []
        loss = reading.step()
        if loss is not None:
            part = gap_between(loss.gap, position, reading.position)
            return [] if part is None else [gap_record(part, loss.epoch)]
        return self.take(reading, n)

    def take_span(self, reading: Reading, span: Span, n: int) -> Sequence[Record] | None:
        """Those of the time asked for. That something is missing was told when it was; a long search takes turns."""
        for _ in range(_MOST_LOOKS):
            found = self.take(reading, n)
            if not found:
                return found
            chosen = [
                record for record in found if record.gap is None and span.holds(self._timeline.timed(record).time)
            ]
            if chosen:
                return chosen
        return None

    async def fetch(self, reading: Reading, n: int) -> None:
        """Read ahead from the disk, so that `take` has something; or step over what nobody has any more."""
        position, base, stop = reading.position, self._window.base, reading.stop
        cursor = reading.cursor
        holds, losses = (cursor.holds, cursor.losses) if reading.span is None else (True, ())
        request = Request(position, holds, losses, reading.place, n, stop, reading.span)
        loop = asyncio.get_running_loop()
        fetched = await loop.run_in_executor(self._thread, self._backlog.fetch, request)
        if reading.position != position or reading.stop != stop:
            return  # it was rewound meanwhile
        self._tell_evicted()
        # What was given up while the disk was asked was not told: it is asked anew. That comes to an end, for each time
        # the writer has filled one segment more, which takes far longer than reading.
        is_outdated = reading.span is None and cursor.losses is not losses
        if is_outdated and _has_passed_over(fetched, position, cursor.losses):
            return
        reading.place = fetched.place
        reading.ahead.extend(fetched.records)
        if fetched.records:
            return
        if fetched.position > position:
            reading.position = fetched.position
            return
        # The disk has no more, so what left the window before we asked is gone.
        first, last = max(position + 1, self._first), min(base, stop)
        if first > last or reading.span is not None:
            reading.position = max(position, last)
            return
        if is_outdated:
            return
        following = self._window.record_after(last)
        if following is not None:
            last_time = self._timeline.known(following.time, following.regime)
        else:
            last_time = self._timekeeper.known_now()
        gap = Gap(first, last, 0, last_time, last - first + 1, "damaged" if cursor.holds else "overtaken")
        reading.ahead.append(gap_record(gap, self._epoch))


def _has_passed_over(fetched: Fetched, position: int, losses: Losses) -> bool:
    """Whether what was fetched above `position` leaves out a part of these losses, or has it as damaged."""
    told = [
        (record.seq if record.gap is None else record.gap.first_seq, record.seq)
        for record in fetched.records
        if record.gap is None or record.gap.cause != "damaged"
    ]
    missing = outside(told, position + 1, fetched.position)
    return any(loss.gap.first_seq <= last and first <= loss.gap.last_seq for first, last in missing for loss in losses)


def _between(records: Sequence[Record], position: int, stop: int) -> list[Record]:
    """The records, and parts of gaps, above `position` up to `stop`."""
    found = []
    for record in records:
        if record.gap is not None:
            part = gap_between(record.gap, position, stop)
            if part is not None:
                found.append(record if part is record.gap else gap_record(part, record.epoch, record.regime))
        elif record.seq <= stop:
            found.append(record)
    return found
