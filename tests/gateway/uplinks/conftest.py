"""An in-memory twin of the spool, and a connection whose other end is a script."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.cursor import Cursor
from gateway.spool.record import Gap, Record, gap_record
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.message import Message
from gateway.uplinks.options import Options
from gateway.uplinks.session import SessionError, Terms

EPOCH = "9f31c2-3"


class MemorySpool:
    """The spool's contract, in memory. `on_disk`: records up to that number can only be `read`, not taken."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.head = 0
        self.on_disk = 0
        self.commits: list[int] = []
        self._new = asyncio.Event()

    def append(self, batch: Batch) -> int:
        self.head += 1
        self.records.append(Record(self.head, EPOCH, batch))
        self._new.set()
        return self.head

    def lose(self, count: int, cause: str = "evicted") -> None:
        first = self.head + 1
        self.head += count
        self.records.append(gap_record(Gap(first, self.head, 1000, 2000, count, cause), EPOCH))
        self._new.set()

    def take(self, cursor: Cursor, n: int) -> Sequence[Record] | None:
        found = [r for r in self.records if r.seq > cursor.position][:n]
        if found and found[0].seq <= self.on_disk:
            return None
        if found:
            cursor.position = found[-1].seq
        return found

    async def read(self, cursor: Cursor, n: int) -> Sequence[Record]:
        while not (found := [r for r in self.records if r.seq > cursor.position][:n]):
            self._new.clear()
            await self._new.wait()
        cursor.position = found[-1].seq
        return found

    def commit(self, cursor: Cursor, seq: int) -> None:
        assert seq >= cursor.committed
        assert seq <= cursor.position
        cursor.committed = seq
        self.commits.append(seq)

    def status(self) -> Any:
        return SimpleNamespace(head=self.head)


class ScriptedServer:
    """Connections to it ask `answer` what becomes of each publish: a reason code, None for silence, or an exception
    that ends the connection. `late` says after how many seconds."""

    def __init__(self, **terms: Any) -> None:
        self.terms = {"server": "mqtt://a:1883", "version": "5", "client_id": "c", "keep_alive_s": 15} | terms
        self.seen: list[tuple[Message, int, bytes]] = []
        self.flying = 0
        self.most_flying = 0
        self.attempts: list[Any] = []
        self.refusals: list[SessionError] = []
        self.connections: list[ScriptedConnection] = []
        self.answer: Callable[[Message], int | SessionError | None] = lambda _: 0
        self.late: Callable[[Message], float] = lambda _: 0.01

    def connect(self, attempt: Any, options: Options, will: Message) -> ScriptedConnection:
        self.attempts.append((attempt, will))
        self.connections.append(ScriptedConnection(self))
        return self.connections[-1]

    def topics(self) -> list[str]:
        return [message.topic for message, _, _ in self.seen]

    def data(self) -> list[bytes]:
        return [message.payload for message, _, _ in self.seen if not message.topic.endswith("/status")]


class ScriptedConnection:
    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.end: str | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tokens = itertools.count(1)
        self._acks: list[tuple[int, int]] = []
        self._on_acks: Callable[[Any], None] = lambda _: None

    @property
    def terms(self) -> Terms:
        return Terms(**self.server.terms)

    async def __aenter__(self):
        await asyncio.sleep(0.01)
        if self.server.refusals:
            raise self.server.refusals.pop(0)
        return self

    async def __aexit__(self, kind, error, trace):
        self.end = "goodbye" if error is None else "hung up"
        self._on_acks = lambda _: None
        self.server.flying = 0

    def listen(self, on_acks):
        self._on_acks = on_acks

    def publish(self, message, qos, properties=b""):
        if self._gone.done():
            raise SessionError("gone")
        token = next(self._tokens)
        self.server.seen.append((message, qos, properties))
        self.server.flying += 1
        self.server.most_flying = max(self.server.most_flying, self.server.flying)
        answer = self.server.answer(message)
        if answer is not None:
            asyncio.get_running_loop().call_later(self.server.late(message), self._answer, token, answer)
        return token

    def _answer(self, token, answer):
        if self._gone.done():
            return
        if isinstance(answer, SessionError):
            self.drop(answer)
            return
        if not self._acks:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._acks.append((token, answer))

    def _deliver(self):
        acks, self._acks = self._acks, []
        self.server.flying -= len(acks)
        self._on_acks(acks)

    def drop(self, error: SessionError | None = None) -> None:
        if not self._gone.done():
            self._gone.set_exception(error or SessionError("the wire was cut"))

    async def lost(self):
        await asyncio.shield(self._gone)


class Bench:
    """A forwarder between a memory spool and a scripted server, in virtual time."""

    def __init__(self, clock: Any, server: ScriptedServer, **options: Any) -> None:
        latest, states = options.pop("latest", None), options.pop("states", {})
        self.server = server
        self.spool = MemorySpool()
        self.metrics = Metrics()
        self.cursor = Cursor("cloud", holds=True, committed=0)
        self.options = Options(**{"name": "cloud", "gateway": "plant7", "servers": ("mqtt://a:1883",)} | options)
        self.forwarder = Forwarder(
            self.options,
            spool=self.spool,
            cursor=self.cursor,
            states=states,
            clock=clock,
            metrics=self.metrics,
            latest=latest,
            connect=server.connect,
        )
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self):
        self.task = asyncio.create_task(self.forwarder.run())
        return self

    async def __aexit__(self, kind, error, trace):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for connection in self.server.connections:
            if connection._gone.done():
                connection._gone.exception()

    async def until(self, condition: Callable[[], object], seconds: float = 600) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        step = 0.001
        while not condition():
            assert not self.task.done(), self.task.exception()
            assert asyncio.get_running_loop().time() < deadline, "waited in vain"
            await asyncio.sleep(step)
            step = min(step * 1.1, 0.2)


@pytest.fixture
def scripted() -> type[ScriptedServer]:
    return ScriptedServer


@pytest.fixture
def memory_spool() -> type[MemorySpool]:
    return MemorySpool


@pytest.fixture
def bench(virtual_clock) -> Callable[..., Bench]:
    return lambda server, **options: Bench(virtual_clock, server, **options)


@pytest.fixture
def define() -> Callable[..., Definition]:
    """`define("flow float32", "pump bool", device="boiler")`."""

    def make(*tags: str, device: str = "boiler", decimals: Sequence[int | None] = (), **fields: str) -> Definition:
        pairs = [tag.split() for tag in tags]
        return Definition(
            device,
            tuple(name for name, _ in pairs),
            tuple(kind for _, kind in pairs),
            ("",) * len(pairs),
            tuple(decimals) or (None,) * len(pairs),
            fields,
        )

    return make


@pytest.fixture
def float32() -> Callable[[float], float]:
    return lambda value: float(struct.unpack("f", struct.pack("f", value))[0])
