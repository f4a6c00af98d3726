"""The broker behind real sockets on 127.0.0.1, on a loop whose time jumps: where nothing moves for a moment, the next
timer is due at once. Hours of keep-alive take milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import os
import selectors
from typing import Any

from gateway.broker.broker import Broker
from gateway.broker.client import Identity
from gateway.broker.listeners import Server
from gateway.broker.options import Address, Limits, Options
from gateway.broker.report import Report
from gateway.metrics import Metrics

PATIENCE_S = 0.003
"""Real time to wait for the kernel, and for threads, before virtual time jumps."""

DEADLINE_S = 100_000.0


class _JumpingSelector(selectors.DefaultSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        ready = super().select(min(timeout, PATIENCE_S))
        if not ready:
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class Clock:
    boot_id = "00000000-0000-4000-8000-000000000000"

    def __init__(self, loop: Loop) -> None:
        self.monotonic = loop.time

    def wall_ms(self) -> int:
        return 1_795_330_000_000 + round(self.monotonic() * 1000)

    def state(self) -> str:
        return "synced"


class Access:
    """Everybody may enter, after `gate` is open, and do everything."""

    def __init__(self) -> None:
        self.generation = 0
        self.methods: dict[str, Any] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Any = None

    def may_publish(self, who: Any, topic: str) -> bool:
        return True

    may_read = may_subscribe = may_publish

    async def login(self, connect: Any, peer: Any) -> Any:
        await self.gate.wait()
        return self.answer or Identity(connect.client_id, connect.username, peer.address)


class Socket:
    """A client's socket. `send` takes bytes or the notation; `take` gives the next packet, checked."""

    def __init__(self, served: Any, reader: Any, writer: Any, level: int) -> None:
        self.served = served
        self.notation = served.notation
        self.reader = reader
        self.writer = writer
        self.level = level

    def send(self, *packets: str | bytes) -> None:
        self.writer.write(b"".join(p if isinstance(p, bytes) else self.notation.raw(p, self.level) for p in packets))

    async def take(self) -> Any:
        """The next packet; None where the server has ended the stream."""
        head = await self.reader.read(1)
        if not head:
            return None
        data = bytearray(head)
        while True:
            data += await self.reader.readexactly(1)
            if data[-1] < 0x80:
                break
        length = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data[1:]))
        return self.notation.read(bytes(data + await self.reader.readexactly(length)), self.level)

    async def connect(self, client_id: str = "c", keep_alive: int = 0, properties: str = "()") -> Any:
        self.send(f"10 .. 'MQTT' {self.level:02x} 02 {keep_alive:04x} {properties} '{client_id}'")
        connack = await self.take()
        assert (connack.kind, connack.reason) == ("CONNACK", 0), connack
        return connack

    async def pinged(self) -> None:
        """The server still answers."""
        self.send("c0 00")
        assert (await self.take()).kind == "PINGRESP"

    async def ended(self, reason: int | None = None) -> float:
        """The stream ends, with a DISCONNECT of this reason before it if one is given. How long that took."""
        started = asyncio.get_running_loop().time()
        if reason is not None:
            seen = await self.take()
            assert (seen.kind, seen.reason) == ("DISCONNECT", reason), seen
        assert await self.take() is None
        return asyncio.get_running_loop().time() - started

    def close(self) -> None:
        self.writer.close()


class WebSocket:
    """A client's WebSocket, by hand: frames are written down as they are."""

    def __init__(self, served: Any, reader: Any, writer: Any) -> None:
        self.notation = served.notation
        self.reader = reader
        self.writer = writer

    async def open(self, path: str = "/mqtt", protocols: str | None = "mqtt") -> tuple[int, dict[str, str]]:
        """The handshake; the status and the headers of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {protocols}"] if protocols is not None else []
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *fields = head.strip().split("\r\n")
        return int(status.split()[1]), {k.strip().lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}

    def frame(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.writer.write(bytes([fin << 7 | opcode]) + length + mask + masked)

    def send(self, *packets: str) -> None:
        """Packets, together in one binary frame."""
        self.frame(2, b"".join(self.notation.raw(packet) for packet in packets))

    async def receive(self) -> tuple[int, bytes]:
        """A frame: its opcode and payload; (-1, b"") where the stream ended. It must not be masked."""
        head = await self.reader.read(2)
        if len(head) < 2:
            return -1, b""
        assert not head[1] & 0x80
        assert head[0] & 0x80, "the server sends whole messages"
        size = head[1]
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        return head[0] & 15, await self.reader.readexactly(size)

    async def packets(self) -> list[Any]:
        """The packets of the next binary frame."""
        opcode, payload = await self.receive()
        assert opcode == 2, (opcode, payload)
        whole, rest = self.notation.split(payload)
        assert not rest
        return [self.notation.read(data, 5) for data in whole]


class Served:
    """A server, and the sockets to it."""

    def __init__(self, notation: Any, options: Options, access: Any) -> None:
        self.notation = notation
        self.access = access
        self.metrics = Metrics()
        self.clock = Clock(asyncio.get_running_loop())  # type: ignore[arg-type]
        report = Report(self.clock, self.metrics)
        now = self.clock.wall_ms() / 1000
        self.broker = Broker(options.limits, access=access, metrics=self.metrics, report=report, store=None, now=now)
        self.server = Server(
            options,
            broker=self.broker,
            access=access,
            report=report,
            metrics=self.metrics,
            clock=self.clock,
            store=None,
        )
        self._sockets: list[Any] = []

    @property
    def connections(self) -> float:
        return next(value for name, _, value in self.metrics if name == "broker_connections")

    async def _dial(self, scheme: str) -> tuple[Any, Any]:
        address = next(address for address in self.server.bound if address.scheme == scheme)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        self._sockets.append(writer)
        return reader, writer

    async def link(self, level: int = 5) -> Socket:
        """A socket on which nothing was said yet."""
        return Socket(self, *await self._dial("mqtt"), level)

    async def peer(self, client_id: str = "c", level: int = 5, **terms: Any) -> Socket:
        """A socket on which CONNECT was accepted."""
        link = await self.link(level)
        await link.connect(client_id, **terms)
        return link

    async def websocket(self) -> WebSocket:
        """A WebSocket before its handshake."""
        return WebSocket(self, *await self._dial("ws"))

    async def browser(self) -> WebSocket:
        """A WebSocket on which CONNECT was accepted."""
        web = await self.websocket()
        assert (await web.open())[0] == 101
        web.send("10 .. 'MQTT' 05 02 0000 () 'web'")
        (connack,) = await web.packets()
        assert connack.reason == 0
        return web

    async def close(self) -> None:
        for writer in self._sockets:
            writer.close()
        await self.server.close()


def run(notation: Any, talk: Any, *, schemes: tuple[str, ...] = ("mqtt",), **limits: Any) -> None:
    """Have `talk(served)` talk to a server with these limits."""

    async def main() -> None:
        listen = tuple(Address(scheme, "127.0.0.1", 0) for scheme in schemes)  # type: ignore[arg-type]
        served = Served(notation, Options(listen=listen, limits=Limits(**limits)), Access())
        for address in listen:
            await served.server.start(address)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await talk(served)
        finally:
            await served.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
