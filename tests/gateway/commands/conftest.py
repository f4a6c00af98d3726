"""Commands to a device of fake registers, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.commands.audit import Audit
from gateway.commands.ids import Ids
from gateway.commands.taking import Arrival, Commands
from gateway.commands.targets import Targets
from gateway.driver import LineKey
from gateway.errors import ExpiredError, LineError
from gateway.metrics import Metrics
from gateway.model import Device, DeviceState, ScanGroup, Tag, WriteRules
from gateway.spool.record import Note, Record

LINE = "tcp://plc:502"
KINDS = {"pump": "bool", "mode": "string", "level": "int16", "temp": "int16", "flow": "float32", "raw": "uint16"}


def make_device(name: str = "boiler", rules: WriteRules | None = None, **over: WriteRules | None) -> Device:
    """A device with a tag of each kind; all may be written by `rules` but `raw`, or by what `over` says."""
    rules = rules or WriteRules()
    tags = [
        Tag(name="pump", address="coil:1", type="bool"),
        Tag(name="mode", address="holding:1", type="string"),
        Tag(name="level", address="holding:2", type="int16", min=0, max=1000),
        Tag(name="temp", address="holding:3", type="int16", scale=0.1),
        Tag(name="flow", address="holding:4", type="float32"),
        Tag(name="raw", address="holding:6", type="uint16"),
    ]
    write = {tag.name: rules if tag.name != "raw" else None for tag in tags} | over
    return Device(name=name, driver="fake", url="x", tags=tuple(replace(t, write=write[t.name]) for t in tags))


class FakePlant:
    """Lines, a driver whose registers are a dict, and the answers in order of arrival.

    `waits_s`: how long the line is busy before.
    `takes_s`, `reading_takes_s`: how long a write and a read take. `at_write`, `at_read`: what happens then instead.
    """

    def __init__(self) -> None:
        self.registers: dict[tuple[str, str], Any] = {}
        self.log: list[tuple[str, str, str, Any]] = []
        self.waits_s = 0.0
        self.takes_s = 0.01
        self.reading_takes_s = 0.001
        self.at_write: Callable[[str, Any], Any] | None = None
        self.at_read: Callable[[str], Any] | None = None
        self.hurried: list[tuple[str, str]] = []
        self.shown: list[tuple[str, str, Any]] = []
        self.is_connected = True
        self.most_at_once: dict[str, int] = {}
        self._now: dict[str, int] = {}

    # the driver

    @classmethod
    def check_write(cls, device: Device, tag: Tag) -> None:
        """Anything goes."""

    async def write(self, device: Device, tag: Tag, value: Any, *, is_wanted: Callable[[], bool]) -> None:
        await asyncio.sleep(self.waits_s)
        if not is_wanted():
            raise ExpiredError("too late", cause="expired")
        self._now[device.name] = self._now.get(device.name, 0) + 1
        self.most_at_once[device.name] = max(self.most_at_once.get(device.name, 0), self._now[device.name])
        self.log.append(("write", device.name, tag.name, value))
        try:
            await asyncio.sleep(self.takes_s)
            if self.at_write is not None:
                value = self.at_write(tag.name, value)
            self.registers[device.name, tag.name] = value
        finally:
            self._now[device.name] -= 1

    async def read_tag(self, device: Device, tag: Tag) -> Any:
        self.log.append(("read", device.name, tag.name, None))
        await asyncio.sleep(self.reading_takes_s)
        value = self.registers.get((device.name, tag.name))
        return value if self.at_read is None else self.at_read(value)

    # the line

    @contextmanager
    def borrow(self):
        if not self.is_connected:
            raise LineError("there is no connection", cause="offline")
        yield self

    def hurry(self, device: str, tag: str) -> None:
        self.hurried.append((device, tag))

    def show(self, device: str, tag: str, raw: Any) -> None:
        self.shown.append((device, tag, raw))

    def writes(self) -> list[tuple[str, Any]]:
        return [(tag, value) for verb, _, tag, value in self.log if verb == "write"]


class FakeStore:
    """A spool's audit. `is_slow`: nothing ever becomes durable. `is_full`: entries give way."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.urgent: list[int] = []
        self.is_slow = self.is_full = False

    def audit(self, name: str, fields: Any, *, urgent: bool) -> Record:
        self.entries.append(dict(fields))
        seq = len(self.entries)
        if urgent:
            self.urgent.append(seq)
        return Record(seq, "e", None, "audit", Note(0, name, fields))

    async def kept(self, seq: int) -> bool:
        assert seq == len(self.entries)
        await asyncio.sleep(1e9 if self.is_slow else 0.005)
        return not self.is_full


class Desk:
    """Commands with everything around them."""

    def __init__(
        self, clock: Any, devices: tuple[Device, ...], *, strict: bool = False, ids: Ids | None = None
    ) -> None:
        self.clock = clock
        self.plant = FakePlant()
        self.store = FakeStore()
        self.metrics = Metrics()
        self.states: dict[str, DeviceState] = {}
        self.answers: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self.told: list[Record] = []
        self.is_clock_right = True
        groups = {
            d.name: [ScanGroup.of(d, d.tags, types=[KINDS[t.name] for t in d.tags], every_s=1.0, plan=None)]
            for d in devices
        }
        self.targets = Targets({LineKey(LINE): devices}, groups, "headgate/g")
        self.commands = Commands(
            self.targets,
            lines={LINE: self.plant}.get,
            states=self.states,
            audit=Audit(self.store, self.told.append, is_strict=strict),
            ids=ids or Ids(),
            is_clock_right=lambda: self.is_clock_right,
            clock=clock,
            metrics=self.metrics,
        )

    def send(self, tag: str, payload: bytes | str, device: str = "boiler", **more: Any) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        facts = {"source": "broker", "who": {"user": "op"}} | more
        self.commands.take(Arrival(device=device, tag=tag, payload=data, answer=self._answered, **facts))

    async def until(self, count: int) -> list[dict[str, Any]]:
        """The first `count` answers."""
        while len(self.answers) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.answers[:count]

    def _answered(self, document: dict[str, Any]) -> None:
        self.answers.append(document)
        self._changed.set()

    async def reply(self, tag: str, payload: bytes | str, **more: Any) -> dict[str, Any]:
        """Send, and wait for the answer."""
        before = len(self.answers)
        self.send(tag, payload, **more)
        return (await self.until(before + 1))[-1]

    def count(self, name: str, **labels: str) -> float:
        return sum(value for n, ls, value in self.metrics if n == name and labels.items() <= ls.items())

    @asynccontextmanager
    async def open(self):
        task = asyncio.create_task(self.commands.run())
        await asyncio.sleep(0)
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def device_of() -> Callable[..., Device]:
    return make_device


@pytest.fixture
def desk(virtual_clock) -> Callable[..., Desk]:
    """`desk(device, …)` gives commands to these devices; without any to one whose tags may all be written."""
    return lambda *devices, **options: Desk(virtual_clock, devices or (make_device(),), **options)


@pytest.fixture
def play(run_virtual, desk):
    """`play(story, …)` runs `story(desk)` while commands are carried out."""

    def run(story, *devices, **options):
        async def main():
            async with desk(*devices, **options).open() as it:
                return await story(it)

        return run_virtual(main())

    return run
