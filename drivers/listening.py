"""Where a simulated device listens: a TCP port, or a pseudo terminal that looks like a serial port.

The far end of `drivers/stream.py`: whoever comes is a stream, `accept` is given it and says who hears it.
"""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias, cast

from drivers.stream import Receiver, Stream
from gateway.errors import LineError

Accept: TypeAlias = Callable[[Stream], Receiver]
"""Is given each stream that is opened to us."""

_CHUNK = 4096


@asynccontextmanager
async def listen_tcp(host: str, port: int, accept: Accept) -> AsyncIterator[int]:
    """Take connections; gives the port, which the system chooses where it is 0. Raises ValueError with the cure."""
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: _Connection(accept, connections), host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"cannot listen on {host}:{port}: {reason}. Is the port taken? 0 takes a free one") from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
        await server.wait_closed()
        await asyncio.sleep(0)  # the connections end in the next turn of the loop


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, accept: Accept, connections: set[_Connection]) -> None:
        self._accept = accept
        self._connections = connections
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<client {'gone' if self._gone.is_set() else 'connected'}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._receiver = self._accept(self)

    def data_received(self, data: bytes) -> None:
        self._receiver.on_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._gone.set()
        self._receiver.on_lost(LineError(f"the client left: {error or 'closed'}", cause="offline"))

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()

    async def wait_closed(self) -> None:
        await self._gone.wait()


@asynccontextmanager
async def listen_pty(path: Path, accept: Accept) -> AsyncIterator[Path]:
    """Make `path` a serial port as far as a client can see: a link to a pseudo terminal, removed at the end.

    Raises ValueError with the cure where something else lies there.
    """
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        os.set_blocking(master, False)
        _link(path, os.ttyname(slave))
        stream = _Pty(master)
        stream.begin(accept(stream))
        try:
            yield path
        finally:
            stream.close()
            _unlink(path)
    finally:
        os.close(master)
        os.close(slave)  # held open all the while: a terminal that nobody has open is an error to its other end


def _link(path: Path, terminal: str) -> None:
    try:
        if path.is_symlink() and not path.exists():
            path.unlink()  # left by a run that was killed
        path.symlink_to(terminal)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{path}: {reason}. Name a path that is not there yet") from error


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Pty:
    """The hidden end of a pseudo terminal. What no client fetches is dropped, as on a wire."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._open = True

    def __repr__(self) -> str:
        return f"<pseudo terminal {'open' if self._open else 'closed'}>"

    def begin(self, receiver: Receiver) -> None:
        """Hear what clients send."""
        self._receiver = receiver
        asyncio.get_running_loop().add_reader(self._master, self._on_readable)

    def _on_readable(self) -> None:
        with suppress(BlockingIOError):
            self._receiver.on_data(os.read(self._master, _CHUNK))

    def write(self, data: bytes) -> None:
        if self._open:
            with suppress(BlockingIOError):
                os.write(self._master, data)

    def close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._master)

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)
