"""An in-memory twin of the spool, and a connection whose other end is a script."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.cursor import Cursor, Reading
from gateway.spool.record import Gap, Record, gap_record
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.message import Message
from gateway.uplinks.options import Options
from gateway.uplinks.session import SessionError, Terms

EPOCH = "9f31c2-3"


class MemorySpool:
    """A queue's contract, in memory. `on_disk`: records up to that number can only be fetched, not taken at once.

    Islands and what is stepped over are the real cursor's business: so is every reading that is made of it.
    """

    def __init__(self, record_class: str = "data", clock: Any = None) -> None:
        self.record_class = record_class
        self.records: list[Record] = []
        self.head = 0
        self.on_disk = 0
        self.commits: list[int] = []
        self.acknowledged: set[int] = set()
        self.cursors: list[Cursor] = []
        self.fetches = 0
        self._clock = clock
        self._calls: list[Callable[[], object]] = []

    def append(self, batch: Batch) -> int:
        self.head += 1
        self._put(Record(self.head, EPOCH, batch))
        return self.head

    def put(self, kind: str, other: Any, **fields: Any) -> int:
        """A record of another kind."""
        self.head += 1
        self._put(Record(self.head, EPOCH, None, kind, other, **fields))
        return self.head

    def lose(self, count: int, cause: str = "evicted") -> None:
        first = self.head + 1
        self.head += count
        self._put(gap_record(Gap(first, self.head, 1000, 2000, count, cause), EPOCH))

    def _put(self, record: Record) -> None:
        self.records.append(record)
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def notify(self, call: Callable[[], object]) -> None:
        self._calls.append(call)

    def take(self, reading: Reading, n: int) -> Sequence[Record] | None:
        if reading.ahead:
            found = [reading.ahead.popleft() for _ in range(min(n, len(reading.ahead)))]
            reading.position = found[-1].seq
            return found
        while reading.position >= reading.stop and reading.position < reading.until:
            reading.step()
        found = self._next(reading, n)
        if found and found[0].seq <= self.on_disk:
            return None
        if found:
            reading.position = found[-1].seq
        else:
            reading.position = max(reading.position, min(reading.until, reading.stop, self.head))
        return found

    def _next(self, reading: Reading, n: int) -> list[Record]:
        found = [r for r in self.records if reading.position < r.seq <= reading.stop]
        if reading.span is not None:
            found = [r for r in found if r.gap is None and reading.span.holds(r.time)]
        return found[:n]

    async def fetch(self, reading: Reading, n: int) -> None:
        self.fetches += 1
        position = reading.position
        await asyncio.sleep(0.001)
        if reading.position == position and not reading.ahead:
            reading.ahead.extend(self._next(reading, n))

    def commit(self, reading: Reading, seq: int) -> None:
        cursor = reading.cursor
        assert seq <= max(reading.position, reading.after)
        if seq <= cursor.committed:
            return
        self.acknowledged.update(r.seq for r in self.records if reading.after < r.seq <= seq)
        cursor.acknowledge(reading.after, seq)
        self.commits.append(seq)

    def timed(self, record: Record) -> Record:
        """Mended where the regime is plausible: an hour is added."""
        if record.regime is None or not record.regime.is_plausible or record.batch is None:
            return record
        return replace(record, batch=replace(record.batch, time=record.batch.time + 3_600_000), regime=None)

    def status(self) -> Any:
        return SimpleNamespace(head=self.head, cursors=[self._describe(cursor) for cursor in self.cursors])

    def _describe(self, cursor: Cursor) -> Any:
        left = [r for r in self.records if r.seq > cursor.committed and not covered(cursor.islands, r.seq)]
        now = self._clock.wall_ms() if self._clock is not None else 0
        age = max(0, now - left[0].time) / 1000 if left else 0.0
        return SimpleNamespace(name=cursor.name, lag_records=len(left), lag_s=age)


def covered(islands: Sequence[tuple[int, int]], seq: int) -> bool:
    return any(first <= seq <= last for first, last in islands)


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
        classes = options.pop("classes", ("data",))
        dice = options.pop("dice", lambda: 0.0)
        self.server = server
        self.spools = {name: MemorySpool(name, clock) for name in classes}
        self.cursors = {name: Cursor("cloud", holds=True, committed=0) for name in classes}
        for name in classes:
            self.spools[name].cursors.append(self.cursors[name])
        self.spool, self.cursor = self.spools["data"], self.cursors["data"]
        self.metrics = Metrics()
        self.options = Options(**{"name": "cloud", "gateway": "plant7", "servers": ("mqtt://a:1883",)} | options)
        self.forwarder = Forwarder(
            self.options,
            streams=[(self.spools[name], self.cursors[name]) for name in classes],
            states=states,
            clock=clock,
            metrics=self.metrics,
            latest=latest,
            connect=server.connect,
            dice=dice,
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
