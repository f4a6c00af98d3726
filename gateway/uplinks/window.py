"""The records of one connection that are sent and not yet committed, in order; what may be committed. Pure.

A record may travel in several publishes (parts, or a topic a tag). It is done when all of them are acknowledged, and it
is committed when every record before it is done too: acknowledgements may come in any order, the commit passes no gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from gateway.uplinks.message import Message

R = TypeVar("R")

_SPAN = 4
"""Records held per publish in flight: bounds what can pile up behind one that is not acknowledged."""


class Entry(Generic[R]):
    """A record in the window.

    `messages`: what is left of it to send, None before it is encoded; `whole`: nothing is. `size`: bytes of its last
    publish. `code`: how the server refused it, or 0, on `topic`; `tries`: how often it did.
    """

    __slots__ = (
        "code",
        "messages",
        "properties",
        "record",
        "replay",
        "seq",
        "size",
        "topic",
        "tries",
        "unacked",
        "whole",
    )

    def __init__(self, seq: int, record: R, *, replay: bool) -> None:
        self.seq = seq
        self.record = record
        self.replay = replay
        self.messages: Iterator[Message] | None = None
        self.properties = b""
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
    def is_done(self) -> bool:
        """Whether the server has all of it."""
        return self.whole and not self.unacked and not self.code

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is under way any more, be it taken or refused."""
        return self.whole and not self.unacked

    def again(self) -> None:
        """Make ready to be sent from the start, as backlog."""
        self.messages = None
        self.whole = False
        self.replay = True
        self.code = 0


class Window(Generic[R]):
    """At most `limit` publishes and about `limit_bytes` in flight (a single larger one goes alone)."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self.limit = limit
        self._limit_bytes = limit_bytes
        self._entries: deque[Entry[R]] = deque()
        self._flying: dict[int, tuple[Entry[R] | None, str, int]] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Window {len(self._flying)}/{self.limit} in flight, {len(self._entries)} records>"

    @property
    def has_room(self) -> bool:
        """Whether one more publish may be sent."""
        return len(self._flying) < self.limit and self._bytes < self._limit_bytes

    @property
    def has_span(self) -> bool:
        """Whether one more record may be opened."""
        return len(self._entries) < self.limit * _SPAN

    @property
    def in_flight(self) -> int:
        """Publishes that are not acknowledged."""
        return len(self._flying)

    @property
    def oldest(self) -> object:
        """What has waited longest for its acknowledgement, to be compared by identity; None: nothing is in flight."""
        return next(iter(self._flying.values()), None)

    @property
    def suspects(self) -> tuple[Entry[R], int] | None:
        """The first record, where it is under way, and the last number under way."""
        if not self._entries or not self._entries[0].unacked:
            return None
        return self._entries[0], max(entry.seq for entry in self._entries if entry.unacked)

    def open(self, seq: int, record: R, *, replay: bool) -> Entry[R]:
        """Take the next record, in the order of the spool."""
        entry = Entry(seq, record, replay=replay)
        self._entries.append(entry)
        return entry

    def sent(self, token: int, entry: Entry[R] | None, topic: str, size: int) -> None:
        """Note a publish under way, of `entry` or (None) of something that is not spooled."""
        self._flying[token] = (entry, topic, size)
        self._bytes += size
        if entry is not None:
            entry.unacked += 1
            entry.size = size

    def acknowledged(self, token: int) -> tuple[Entry[R] | None, str] | None:
        """Whose publish that was, and its topic; None for a token we do not know."""
        found = self._flying.pop(token, None)
        if found is None:
            return None
        entry, topic, size = found
        self._bytes -= size
        if entry is not None:
            entry.unacked -= 1
        return entry, topic

    def advance(self) -> tuple[int, int] | None:
        """Let go of the records at the head that are done: the last one's seq and their number, or None."""
        entries = self._entries
        seq = count = 0
        while entries and entries[0].is_done:
            seq = entries.popleft().seq
            count += 1
        return (seq, count) if count else None
