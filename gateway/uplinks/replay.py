"""A replay that somebody asked for: what the spool has of a time is sent once more, marked, while all else goes on.

It commits nothing. It outlives connections (what was not acknowledged is sent again), but not the process. What the
spool does not have any more, because it was acknowledged and never written, cannot be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.spool.cursor import Reading, Span
from gateway.uplinks.lane import Lane, Progress, Stream
from gateway.uplinks.suspect import Key

_MOST_BLAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStatus:
    """How far a replay is. Times in ms: what was asked for, and of the record acknowledged last.

    `error`: why it ended before its end.
    """

    first_ms: int
    last_ms: int
    sent: int
    position_ms: int | None
    done: bool
    error: str


class Replay:
    """One replay, with a reading for each stream."""

    def __init__(self, span: Span, streams: Sequence[Stream]) -> None:
        self._span = span
        self._left = [(stream, stream.cursor.branch(0, stream.source.head, span)) for stream in streams]
        self._sent = 0
        self._position_ms: int | None = None
        self._error = ""
        self._suspect: Key | None = None
        self._blames = 0

    def __repr__(self) -> str:
        return f"<Replay {self._span.first_ms} to {self._span.last_ms}: {self._sent} records>"

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to send, or it was ended."""
        return not self._left

    def readings(self) -> Sequence[tuple[Stream, Reading]]:
        """What is left to read, from what is acknowledged on."""
        for _, reading in self._left:
            reading.go_to(reading.after)
        return self._left

    def add(self, lane: Lane, progress: Progress) -> None:
        """So much is acknowledged."""
        self._sent += progress.records
        self._position_ms = lane.time

    def over(self, lane: Lane) -> None:
        """One stream is through."""
        self._left = [(stream, reading) for stream, reading in self._left if reading is not lane.reading]

    def end(self, error: str = "") -> None:
        """Send no more."""
        self._left = []
        self._error = error

    def blame(self, key: Key) -> None:
        """The connection broke when this record had been on its way for longest. Nobody's data is worth the link."""
        self._blames = self._blames + 1 if key == self._suspect else 1
        self._suspect = key
        if self._blames >= _MOST_BLAMES:
            self.end(f"the connection breaks whenever record {key[1]} is sent")

    def status(self) -> ReplayStatus:
        """How far it is."""
        return ReplayStatus(
            first_ms=self._span.first_ms,
            last_ms=self._span.last_ms,
            sent=self._sent,
            position_ms=self._position_ms,
            done=self.is_done,
            error=self._error,
        )
