"""A tap on a line: an endpoint like the one it stands before, whose bytes can be recorded while it is in use.

While nobody records it costs nothing: what the stream and its listener call are each other's own methods. A recording
begins and ends in the middle of a connection; the line is never opened twice for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

from drivers.recording import Entry, Kind, head_lines
from drivers.stream import Endpoint, Receiver, Stream
from gateway.errors import LineError

Note: TypeAlias = Callable[[str], None]
"""Takes one line of a recording. Never raises."""


class Tape:
    """Stands for `endpoint`. `head` is what a recording says first: url, framing, and what else a reader must know."""

    def __init__(self, endpoint: Endpoint, head: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._head = dict(head)
        self._taps: set[_Tap] = set()
        self._note: Note | None = None
        self._started = 0.0

    def __str__(self) -> str:
        return str(self._endpoint)

    def __repr__(self) -> str:
        return f"<tape of {self._endpoint}, {'recording' if self._note else 'idle'}>"

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:
        """Open the endpoint. Raises LineError."""
        tap = _Tap(self, receiver)
        try:
            tap.join(await self._endpoint.open(tap, timeout_s=timeout_s))
        except LineError as error:
            self.say(f"not opened: {error}")
            raise
        self._taps.add(tap)
        tap.switch(on=self._note is not None)
        self.say("opened")
        return tap

    def record(self, note: Note | None, *, started: str) -> None:
        """Tell `note` everything from now on, beginning with the head, which says `started`; None ends it."""
        if self._note is not None:
            self.say("end of the recording")
        self._note = note
        if note is not None:
            self._started = asyncio.get_running_loop().time()
            for line in head_lines({**self._head, "started": started}):
                note(line)
            if self._taps:
                self.say("already open")
        for tap in self._taps:
            tap.switch(on=note is not None)

    def hear(self, kind: Kind, data: bytes) -> None:
        """Bytes went over the line."""
        if self._note is not None:
            self._note(str(Entry(self._at(), kind, data)))

    def say(self, text: str) -> None:
        """Something else happened to the line."""
        if self._note is not None:
            self._note(str(Entry(self._at(), "=", text=text)))

    def drop(self, tap: _Tap) -> None:
        """That stream has ended."""
        self._taps.discard(tap)

    def _at(self) -> float:
        return max(0.0, asyncio.get_running_loop().time() - self._started)


class _Tap:
    """One open stream, and who hears it: a stream to one side, a receiver to the other."""

    on_data: Callable[[bytes], None]
    write: Callable[[bytes], None]

    def __init__(self, tape: Tape, receiver: Receiver) -> None:
        self._tape = tape
        self._receiver = receiver
        self.on_data = self._heard  # until it is known that nobody records

    def __repr__(self) -> str:
        return f"<tap on {self._stream!r}>"

    def join(self, stream: Stream) -> None:
        """The stream is open."""
        self._stream = stream

    def switch(self, *, on: bool) -> None:
        """Listen to what goes by, or get out of the way."""
        self.on_data = self._heard if on else self._receiver.on_data
        self.write = self._sent if on else self._stream.write

    def _heard(self, data: bytes) -> None:
        self._tape.hear("<", data)
        self._receiver.on_data(data)

    def _sent(self, data: bytes) -> None:
        self._tape.hear(">", data)
        self._stream.write(data)

    def on_lost(self, error: LineError) -> None:
        """The stream ended and not because we closed it."""
        self._tape.drop(self)
        self._tape.say(f"lost: {error}")
        self._receiver.on_lost(error)

    def close(self) -> None:
        """End it now."""
        self._tape.drop(self)
        self._tape.say("closed")
        self._stream.close()

    async def wait_closed(self) -> None:
        """Return when the system's resources are given back."""
        await self._stream.wait_closed()
