"""Giving records up before they were acknowledged, because a person says so: what would go, and letting it go.

What goes is told before, counted, logged, and noted in the spool itself as an audit entry, which the uplinks get like
any other record and which `headgate queue audit` reads again.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from gateway.model import RecordClass
from gateway.spool.cursor import Mark
from gateway.spool.record import Note, Record
from gateway.spool.status import QueueStatus
from gateway.upkeep.audit import FORGET, PURGE
from gateway.upkeep.continuity import Stored, follow
from gateway.upkeep.records import decoded, timeline_of
from gateway.upkeep.survey import Advance, Survey

log = logging.getLogger("headgate.upkeep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one uplink gives up of one class: up to `last_seq`, `count` records, taken between two times (ms)."""

    record_class: RecordClass
    uplink: str
    first_seq: int
    last_seq: int
    count: int
    first_time: int
    last_time: int


class Gives(Protocol):
    """A queue, as far as it gives something up."""

    @property
    def record_class(self) -> RecordClass:
        """Of its records."""
        ...

    @property
    def head(self) -> int:
        """The number of the last record accepted."""
        ...

    def status(self) -> QueueStatus:
        """How things stand."""
        ...

    def give_up(self, name: str, seq: int) -> None:
        """Let a cursor go on behind `seq`."""
        ...

    def forget(self, name: str) -> None:
        """Give up a cursor."""
        ...

    def add(self, content: Note, kind: Literal["audit"]) -> int:
        """Take a note for the audit."""
        ...


def planned(
    survey: Survey, before_ms: int | None, uplink: str | None, *, advance: Advance | None = None
) -> list[Share]:
    """What each uplink would give up of what is on the disk: what was taken before that moment, or all of it.

    Records go in their order: behind the first that was taken later, none does, whatever its time.
    """
    state = survey.state()
    marks = [m for m in state.marks if uplink in (None, m.name)] if state is not None else []
    sums = [_Sum(mark, survey.part.record_class) for mark in marks]
    timeline = timeline_of(survey)
    for finding in follow(survey.walk(advance=advance)):
        if not isinstance(finding, Stored) or not sums:
            continue
        for record in decoded(survey, finding.seen):
            if record.seq <= finding.above or record.gap is not None:
                continue
            timed = timeline.timed(record)
            if before_ms is not None and timed.time >= before_ms:
                return [s.share() for s in sums if s.count]
            for s in sums:
                s.add(timed)
    return [s.share() for s in sums if s.count]


class _Sum:
    """Adds up what one uplink would give up."""

    def __init__(self, mark: Mark, record_class: RecordClass) -> None:
        self.count = 0
        self._mark = mark
        self._class: RecordClass = record_class
        self._first: Record | None = None
        self._last: Record | None = None
        self._earliest = self._latest = 0

    def add(self, record: Record) -> None:
        """Count a record, unless the uplink has acknowledged it."""
        mark = self._mark
        if record.seq <= mark.committed or any(first <= record.seq <= last for first, last in mark.spared):
            return
        self.count += 1
        self._first = self._first or record
        self._last = record
        self._earliest = min(self._earliest or record.time, record.time)
        self._latest = max(self._latest, record.time)

    def share(self) -> Share:
        """What it came to."""
        return Share(
            record_class=self._class,
            uplink=self._mark.name,
            first_seq=self._first.seq if self._first is not None else 0,
            last_seq=self._last.seq if self._last is not None else 0,
            count=self.count,
            first_time=self._earliest,
            last_time=self._latest,
        )


def give_up(queue: Gives, uplink: str, last_seq: int | None, *, times: tuple[int, int], now_ms: int) -> Share | None:
    """Let an uplink go on behind `last_seq`, or behind everything. Gives what went; None where nothing did."""
    before = _lag(queue, uplink)
    if before is None:
        return None
    queue.give_up(uplink, queue.head if last_seq is None else min(last_seq, queue.head))
    after = _lag(queue, uplink)
    assert after is not None  # noqa: S101 - it was there a moment ago
    if after[0] <= before[0]:
        return None
    share = Share(
        record_class=queue.record_class,
        uplink=uplink,
        first_seq=before[0] + 1,
        last_seq=after[0],
        count=max(0, before[1] - after[1]),
        first_time=times[0],
        last_time=times[1],
    )
    _note(queue, PURGE, share, now_ms)
    return share


def forget(queue: Gives, uplink: str, *, now_ms: int) -> Share | None:
    """Give up an uplink's cursor and all it held. Gives what went; None where the queue has no such cursor."""
    lag = _lag(queue, uplink)
    if lag is None:
        return None
    share = Share(
        record_class=queue.record_class,
        uplink=uplink,
        first_seq=lag[0] + 1,
        last_seq=queue.head,
        count=lag[1],
        first_time=0,
        last_time=0,
    )
    queue.forget(uplink)
    _note(queue, FORGET, share, now_ms)
    return share


def _lag(queue: Gives, uplink: str) -> tuple[int, int] | None:
    """Up to where an uplink has acknowledged, and how many records wait for it."""
    found = next((c for c in queue.status().cursors if c.name == uplink), None)
    return None if found is None else (found.committed, found.lag_records)


def _note(queue: Gives, name: str, share: Share, now_ms: int) -> None:
    queue.add(Note(now_ms, name, asdict(share)), "audit")
    if share.first_seq > share.last_seq:
        log.warning("%s by a person: uplink '%s' has all of class %s", name, share.uplink, share.record_class)
        return
    log.warning(
        "%s by a person: uplink '%s' gives up records %d to %d of class %s, about %d of them",
        name,
        share.uplink,
        share.first_seq,
        share.last_seq,
        share.record_class,
        share.count,
    )
