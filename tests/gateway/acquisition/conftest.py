"""A line on virtual time whose devices are silent when the script says so, and everything that was asked of it."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from gateway.acquisition.line import Line
from gateway.errors import DeviceError, LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, Device, ScanGroup, Tag


@dataclass(frozen=True)
class Asked:
    """One read or probe: of what, from when to when, and whether it was answered."""

    device: str
    group: str
    start: float
    end: float
    good: bool

    @property
    def cost(self):
        return self.end - self.start


class Bus:
    """A line with one request at a time. `silent(device, group, now)` says who does not answer; "probe" is a group too.

    `partial` are groups that answer in part where they are silent; `takes` is how long a good answer takes, `timeout`
    how long a silence does, by device.
    """

    def __init__(self, clock):
        self.clock = clock
        self.asked = []
        self.silent = lambda _device, _group, _now: False
        self.partial = set()
        self.takes = 0.05
        self.timeout = {}
        self.hangs = lambda _now: False
        self.refuses = False
        self.connects = 0
        self.under_way = 0
        self.learned = None
        self.recalled = []
        self.drivers = []

    async def ask(self, device, group, batch=None):
        start = self.clock.monotonic()
        while self.hangs(self.clock.monotonic()):
            await asyncio.get_running_loop().create_future()
        self.under_way += 1
        assert self.under_way == 1, "two requests at once on one bus"
        good = False
        try:
            if self.silent(device, group, start):
                await asyncio.sleep(self.timeout.get(device, 1.0))
                part = batch if group in self.partial else None
                raise DeviceError(f"{device}: no answer", cause="timeout", partial=part)
            await asyncio.sleep(self.takes)
            good = True
        finally:
            self.under_way -= 1
            self.asked.append(Asked(device, group, start, self.clock.monotonic(), good))

    def of(self, device, group=None):
        return [a for a in self.asked if a.device == device and group in (None, a.group)]

    @property
    def failed(self):
        return [a for a in self.asked if not a.good]

    def driver(self, *, probes=True, learns=False):
        bus = self

        class Driver:
            DeviceOptions = TagOptions = BaseModel

            def __init__(self, devices, *, clock, metrics):
                bus.drivers.append(self)

            async def __aenter__(self):
                bus.connects += 1
                if bus.refuses:
                    raise LineError("connection refused", cause="offline")
                return self

            async def __aexit__(self, *_):
                pass

            async def read(self, group):
                batch = Batch(group, bus.clock.wall_ms(), [1.0] * len(group.names), GOOD)
                await bus.ask(group.device, group.names[0], batch)
                return batch

        if probes:

            async def probe(_self, device):
                await bus.ask(device.name, "probe")

            Driver.probe = probe
        if learns:
            Driver.lessons = lambda _self: bus.learned
            Driver.recall = lambda _self, lessons: bus.recalled.append(lessons)
        return Driver

    def line(self, devices, *, probes=True, learns=False, **more):
        """`devices`: for each name its groups, as (tag, period) or (tag, period, class)."""
        rows = []
        for name, groups in devices.items():
            device = Device(name=name, driver="x", url="")
            rows.append((device, [_group(device, *group) for group in groups]))
        found = SimpleNamespace(sent=[], states=[], metrics=Metrics(), image=Image())
        found.line = Line(
            "bus",
            self.driver(probes=probes, learns=learns),
            rows,
            **{
                "sink": found.sent.append,
                "image": found.image,
                "on_state": found.states.append,
                "clock": self.clock,
                "metrics": found.metrics,
                "dice": lambda: 1.0,
            }
            | more,
        )
        found.metric = lambda name, **labels: sum(
            v for n, has, v in found.metrics if n == name and labels.items() <= has.items()
        )
        return found


def _group(device, tag, every, record_class="data"):
    tags = [Tag(name=tag, address="", every_s=every, record_class=record_class)]
    return ScanGroup.of(device, tags, types=["float32"], every_s=every, plan=None)


async def _during(line, seconds, *later):
    """Run a line so long; call each function of `later` at its second. Returns its task."""
    task = asyncio.create_task(line.run())
    passed = 0.0
    for at, change in later:
        await asyncio.sleep(at - passed)
        passed = at
        change()
    await asyncio.sleep(seconds - passed)
    task.cancel()
    await asyncio.wait([task], timeout=1e4)
    return task


@pytest.fixture
def bus(virtual_clock):
    return Bus(virtual_clock)


@pytest.fixture
def play(virtual_clock, virtual_loop):
    """`play(script, seconds, …)`: everything new, as examples of a property want it. `script(bus)` builds the line."""

    def run(script, seconds, *later):
        clock = type(virtual_clock)()
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            clock.now = runner.get_loop().time
            fresh = Bus(clock)
            found = script(fresh)
            found.task = runner.run(_during(found.line, seconds, *later))
        return fresh, found

    return run


@pytest.fixture
def during():
    return _during
