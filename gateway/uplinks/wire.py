"""A connected socket that reads ahead, and writes once what it was handed in pieces.

paho reads a PUBACK in three calls of `recv` (1, 1 and 2 bytes) and writes each PUBLISH by itself. It still does, but
behind this the kernel is asked once for everything that has come, and once for everything that was queued in one turn
of the loop: a third of the cost, and no small segments for Nagle's algorithm to hold back.

One thread at a time. Never blocks once `setblocking(False)` was called.
"""

from __future__ import annotations

import socket
import ssl

_READ = 65536


class Wire:
    """What paho asks of a socket, and `flush`. Plain and TLS sockets alike."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in = b""
        self._at = 0
        self._is_dry = False
        self._out: list[bytes | bytearray] = []
        self._rest = b""
        self.error = ""
        """What the socket said last when it failed: paho keeps that to itself."""

    def __repr__(self) -> str:
        return f"<Wire {self._sock.fileno()}: {len(self._in) - self._at} B read ahead, {len(self._rest)} B unsent>"

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the signature of a socket
        """As of a socket."""
        self._sock.setblocking(flag)

    def pending(self) -> int:
        """Bytes that were read ahead: paho's loop goes on reading while there are any."""
        inner = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 else 0
        return len(self._in) - self._at + inner

    def recv(self, size: int) -> bytes:
        """At most `size` bytes. Raises BlockingIOError, or what a TLS socket raises, when there is nothing now."""
        if self._at >= len(self._in):
            if self._is_dry:  # the last read emptied the socket: do not ask again only to hear "nothing"
                self._is_dry = False
                raise BlockingIOError
            try:
                self._in = self._sock.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError as error:
                self.error = str(error)
                raise
            self._at = 0
            self._is_dry = len(self._in) < _READ
        start = self._at
        self._at = start + size
        return self._in[start : start + size]

    def send(self, data: bytes | bytearray) -> int:
        """Take `data` for the next `flush`. Raises BlockingIOError while the last one is not through."""
        if self._rest:
            raise BlockingIOError
        self._out.append(data)
        return len(data)

    def flush(self) -> bool:
        """Write what was taken; False when some of it must wait until the socket is writable. Raises OSError."""
        if self._out:
            self._rest += b"".join(self._out)
            self._out.clear()
        while self._rest:
            try:
                sent = self._sock.send(self._rest)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self.error = str(error)
                raise
            self._rest = self._rest[sent:]
        return True

    def discard(self) -> None:
        """Forget what was not written."""
        self._out.clear()
        self._rest = b""

    def close(self) -> None:
        """Write what can be written at once (the DISCONNECT), and close."""
        try:
            self.flush()
        except OSError:
            self.discard()
        self._sock.close()
