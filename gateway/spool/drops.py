"""Drops: what had to be given up, counted by cause, remembered by its range, and logged without a flood.

An episode of dropping is one range and one line in the log when it begins; while it lasts, one line in ten minutes says
how far it came; one when it is over says what it cost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gateway.journal.frame import Head
from gateway.metrics import Metrics
from gateway.model import RecordClass
from gateway.spool.cursor import Cursor
from gateway.spool.islands import count, outside
from gateway.spool.losses import gap_between, lose, lose_tail
from gateway.spool.record import Cause, Gap

log = logging.getLogger("headgate.spool")

_PAUSE_S = 600.0
_COUNTERS: Mapping[Cause, str] = {
    "evicted": "spool_evicted_records_total",
    "refused": "spool_refused_records_total",
    "thinned": "spool_thinned_records_total",
    "memory": "spool_dropped_records_total",
    "too large": "spool_dropped_records_total",
    "damaged": "spool_damaged_records_total",
}
_BEGINS: Mapping[Cause, tuple[int, str]] = {
    "evicted": (logging.WARNING, "the spool is full: %s were given up before all uplinks had them"),
    "refused": (logging.ERROR, "the spool is full and so is memory: %s and what follows are not taken"),
    "thinned": (logging.WARNING, "the spool is nearly full: to make room, only the main values are left of %s"),
    "memory": (logging.ERROR, "the disk does not keep up and memory is full: %s are dropped, the oldest first"),
    "too large": (logging.ERROR, "%s cannot be stored: larger than a segment"),
    "damaged": (logging.ERROR, "%s are damaged on the disk, and not all uplinks have them"),
}


@dataclass(slots=True)
class _Episode:
    """One stretch of dropping for one cause: its range, what was logged of it and when."""

    gap: Gap
    said: int
    said_at: float
    is_over: bool = False


class Drops:
    """What one queue dropped since the start. `counts` and `last` by cause; `now` is monotonic time in seconds."""

    def __init__(self, metrics: Metrics, record_class: RecordClass, now: Callable[[], float]) -> None:
        self._class = record_class
        self._now = now
        self._counters = {cause: metrics.counter(name, **{"class": record_class}) for cause, name in _COUNTERS.items()}
        self._episodes: dict[Cause, _Episode] = {}
        self._yielding: set[str] = set()
        self.counts: dict[Cause, int] = dict.fromkeys(_COUNTERS, 0)

    @property
    def last(self) -> Mapping[Cause, Gap]:
        """The range of the last episode for each cause that had one."""
        return {cause: episode.gap for cause, episode in self._episodes.items()}

    def note(self, gap: Gap) -> None:
        """These records are lost, wholly or in detail."""
        cause = gap.cause
        self._counters[cause].value += gap.count
        self.counts[cause] += gap.count
        episode, now = self._episodes.get(cause), self._now()
        if episode is None or episode.is_over:
            self._episodes[cause] = _Episode(gap, gap.count, now)
            level, text = _BEGINS[cause]
            log.log(level, text, self._told(gap))
            return
        episode.gap = episode.gap.joined(gap)
        if now - episode.said_at >= _PAUSE_S:
            self._say(episode, now, "until now")

    def settle(self, *, is_degraded: bool, is_refusing: bool, is_behind: bool) -> None:
        """How things stand now: whether the disk fails, memory is full, or somebody needs what is on the disk."""
        if not is_degraded:
            self.over("memory")
        if not is_refusing:
            self.over("refused")
        if not is_behind:
            self.over("evicted")
            self.over("thinned")

    def over(self, cause: Cause) -> None:
        """There is no more of it for now."""
        episode = self._episodes.get(cause)
        if episode is not None and not episode.is_over:
            episode.is_over = True
            if episode.gap.count > episode.said:
                self._say(episode, self._now(), "in all")

    def say_who_yields(self, cursors: Iterable[Cursor]) -> None:
        """Not the newest records gave way, but those of cursors whose uplinks are gone: once for each of them."""
        for cursor in cursors:
            if cursor.holds_until is not None and cursor.losses and cursor.name not in self._yielding:
                self._yielding.add(cursor.name)
                log.warning(
                    "the spool is full: what it kept of class %s for '%s' gives way, for no uplink has that name now",
                    self._class,
                    cursor.name,
                )

    def _say(self, episode: _Episode, now: float, when: str) -> None:
        log.warning("%s %s: %s", episode.gap.cause, when, self._told(episode.gap))
        episode.said, episode.said_at = episode.gap.count, now

    def _told(self, gap: Gap) -> str:
        """`12 records of class data, 4711 to 4722, from 2026-11-22T20:00:00Z to 2026-11-22T20:00:12Z`."""
        times = [_moment(time) for time in (gap.first_time, gap.last_time) if time]
        span = f", from {times[0]} to {times[-1]}" if times else ""
        noun = "record" if gap.count == 1 else "records"
        return f"{gap.count} {noun} of class {self._class}, {gap.first_seq} to {gap.last_seq}{span}"


def _moment(time: int) -> str:
    """A time in ms as people read it; what no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time} ms"


def evict(cursors: Iterable[Cursor], heads: Sequence[Head]) -> Gap | None:
    """Note in each cursor what it loses with these frames, the oldest on the disk; None where nobody loses anything."""
    worst = 0
    for cursor in cursors:
        before = sum(loss.gap.count for loss in cursor.losses)
        cursor.losses = lose(cursor.losses, cursor.committed, heads, cursor.spared)
        worst = max(worst, sum(loss.gap.count for loss in cursor.losses) - before)
    if not worst:
        return None
    first, last = heads[0], heads[-1]
    return Gap(first.first_seq, last.last_seq, first.min_time, last.max_time, worst, "evicted")


def forfeit(cursors: Iterable[Cursor], gap: Gap, epoch: str) -> None:
    """Note in each cursor what it loses of the newest records, which were in memory only."""
    for cursor in cursors:
        left = outside(cursor.spared, max(gap.first_seq, cursor.committed + 1), gap.last_seq)
        part = gap_between(gap, left[0][0] - 1, left[-1][1]) if left else None
        if part is not None:
            part = replace(part, count=min(part.count, count(left)))
            cursor.losses = lose_tail(cursor.losses, cursor.committed, part, epoch)
