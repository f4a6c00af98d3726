"""What an uplink has still to catch up on: how much, how fast it goes, when it will be done. The log is told twice."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.uplinks.pacing import Meter

log = logging.getLogger("headgate.uplinks")

_MEASURED_S = 5.0
"""A backlog that takes less time is not worth a line in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`records` to go, about; at `rate` values a second lately; done in `left_s` seconds, None where nobody knows."""

    records: int
    rate: float
    left_s: float | None


class Backlog:
    """One uplink's backlog, over all connections that it takes."""

    def __init__(self, uplink: str) -> None:
        self._uplink = uplink
        self._meter = Meter()
        self._left = 0
        self._begun: float | None = None
        self._moved: float | None = None
        self._sent = 0
        self._is_told = False

    def __repr__(self) -> str:
        return f"<Backlog of '{self._uplink}': {self._left} records>"

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return self._begun is not None

    def begin(self, records: int, now: float) -> None:
        """A connection is made, and about so many records wait."""
        self._left = records
        if self._begun is None:
            self._begun, self._moved, self._sent, self._is_told = now, None, 0, False
            self._meter = Meter()

    def add(self, records: int, values: int, now: float) -> None:
        """So much of it is acknowledged."""
        if self._moved is None:
            self._moved = now
            self._meter.look(now)
        self._meter.add(records, values)
        self._sent += records
        self._left = max(0, self._left - records)

    def look(self, now: float) -> Outlook:
        """How it stands. To be asked about once a second while it is there; tells the log of it when it is large."""
        if not self.is_there:
            return Outlook(records=0, rate=0.0, left_s=0.0)
        records, values = self._meter.look(now)
        outlook = Outlook(records=self._left, rate=values, left_s=self._left / records if records else None)
        if not self._is_told and outlook.left_s and self._moved is not None and now - self._moved >= _MEASURED_S:
            self._is_told = True
            log.info(
                "uplink '%s': a backlog of about %d records is being sent, at %.0f values/s it takes %s",
                self._uplink,
                self._left + self._sent,
                values,
                in_words(outlook.left_s),
            )
        return outlook

    def done(self, now: float) -> None:
        """Nothing is left of it."""
        if self._is_told and self._begun is not None:
            log.info(
                "uplink '%s': the backlog is sent, %d records in %s",
                self._uplink,
                self._sent,
                in_words(now - self._begun),
            )
        self._begun, self._left, self._is_told = None, 0, False


def in_words(seconds: float) -> str:
    """A duration as people say it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
