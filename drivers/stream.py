"""The byte stream below a field protocol: TCP and memory, opened within a deadline, gone at once when closed.

Nothing here knows a protocol. A stream pushes what it hears to its `Receiver`; nobody awaits bytes, so that a protocol
may send its next request from within the call that brought the last answer, without waking a task in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from gateway.errors import LineError

_KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
"""A peer that vanished without a word is noticed after about 30 s: s, s, probes, ms. Not every system has all four."""

_CURES: dict[type[OSError], str] = {
    ConnectionRefusedError: "is the device's server on, and is the port right?",
    socket.gaierror: "is the host name right, and does this machine reach its name server?",
}


class Receiver(Protocol):
    """Who hears a stream. Called from the event loop, never from within `open`, `write` or `close`."""

    def on_data(self, data: bytes) -> None:
        """Bytes arrived, cut anywhere."""
        ...

    def on_lost(self, error: LineError) -> None:
        """The stream ended and not because we closed it. Nothing follows."""
        ...


class Stream(Protocol):
    """An open byte stream."""

    def write(self, data: bytes) -> None:
        """Send, never blocks. After the end of the stream it does nothing: `on_lost` tells, or has told."""
        ...

    def close(self) -> None:
        """End it now; what is unsent is dropped. Nothing is heard any more. Closing twice is harmless."""
        ...

    async def wait_closed(self) -> None:
        """Return when the system's resources are given back, which `close` makes happen at once."""
        ...


class Endpoint(Protocol):
    """Where a stream leads to: something that can be opened again and again."""

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:
        """Connect. Raises LineError, also when that takes longer than `timeout_s`."""
        ...


# --- TCP ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port. `str()` of it is its url."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:
        """Connect, name look-up included, within `timeout_s`."""
        stream = _TcpStream(receiver, str(self))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(lambda: stream, self.host, self.port)
        except TimeoutError:
            raise LineError(
                f"{self}: no connection within {timeout_s:g} s: is the device on, and does a firewall let us through?",
                cause="offline",
            ) from None
        except OSError as error:
            cure = next((f": {text}" for kind, text in _CURES.items() if isinstance(error, kind)), "")
            raise LineError(f"{self}: {_reason(error)}{cure}", cause="offline") from error
        except ValueError as error:  # an empty or overlong label between two dots, a NUL
            text = f"{self}: {self.host!r} is no name of a host: is the url right?"
            raise LineError(text, cause="config") from error
        stream.begin()
        return stream


class _TcpStream(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, receiver: Receiver, name: str) -> None:
        self._receiver = receiver
        self._name = name
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._ended_by = "closed by the peer"
        self._heard = False  # whether on_lost may be told: between `begin` and the end

    def __repr__(self) -> str:
        return f"<stream {self._name} {'closed' if self._gone.is_set() else 'open'}>"

    def begin(self) -> None:
        """From now on `on_lost` is told. A connection that was lost before never was one."""
        if self._gone.is_set():
            raise LineError(f"{self._name}: {self._ended_by} at once: does it take another client?", cause="offline")
        self._heard = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = cast(socket.socket, transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def data_received(self, data: bytes) -> None:
        if self._heard:
            self._receiver.on_data(data)

    def pause_writing(self) -> None:
        # Requests are a few bytes each: when 64 KiB of them wait, the peer has not read for a very long time.
        self._ended_by = "the peer has stopped reading"
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone.set()
        if isinstance(error, OSError):
            self._ended_by = _reason(error)
        if self._heard:
            self._receiver.on_lost(LineError(f"{self._name}: {self._ended_by}", cause="offline"))

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._heard = False
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        await self._gone.wait()


def _reason(error: OSError) -> str:
    """What the system says, without the tuple that asyncio wraps around it."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


# --- memory ---------------------------------------------------------------------------------------------------------


class Memory:
    """An endpoint without a network: `accept` is given the far end of each stream and returns who listens there."""

    def __init__(self, accept: Callable[[Stream], Receiver]) -> None:
        self._accept = accept

    def __str__(self) -> str:
        return "memory:"

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:  # noqa: ARG002 - memory never makes one wait
        """Two ends, joined; delivery is by the event loop, as on a network."""
        near, far = _MemoryStream(), _MemoryStream()
        near.join(far, receiver)
        far.join(near, self._accept(far))
        return near


class _MemoryStream:
    """One end of a pair. What one end writes, the other's receiver hears in the next turn of the loop."""

    _other: _MemoryStream
    _receiver: Receiver

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = True

    def __repr__(self) -> str:
        return f"<stream memory: {'open' if self._open else 'closed'}>"

    def join(self, other: _MemoryStream, receiver: Receiver) -> None:
        """Name the other end, and who hears this one."""
        self._other, self._receiver = other, receiver

    def write(self, data: bytes) -> None:
        if self._open:
            self._loop.call_soon(self._other.deliver, data)

    def deliver(self, data: bytes) -> None:
        """Bytes from the other end; None of them after the end."""
        if self._open:
            self._receiver.on_data(data)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.call_soon(self._other.lose)

    def lose(self) -> None:
        """The other end was closed."""
        if self._open:
            self._open = False
            self._receiver.on_lost(LineError("memory:: closed by the peer", cause="offline"))

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)
