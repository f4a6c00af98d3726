"""The driver: one line of Modbus and the units on it. Composed here; what it does stands in the files it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from drivers.modbus import options
from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.exchange import Exchange, IsWanted
from drivers.modbus.lines.pace import Pace
from drivers.modbus.lines.transport import transport_of
from drivers.modbus.lines.url import route_of
from drivers.modbus.polling import budget, plan
from drivers.modbus.polling.poller import Poller
from drivers.modbus.setup import Setup, setup_of
from drivers.modbus.tools.exploring import Explorer, devices_of
from drivers.modbus.writing import Writer, as_read, target_of
from drivers.stream import Endpoint
from drivers.tape import Tape
from gateway.clock import Clock
from gateway.driver import Explanation, LineKey
from gateway.metrics import Metrics
from gateway.model import Device, ScanGroup, Tag, Value


class Driver(Poller, Explorer):
    """One line and its devices. `endpoint` is where the line leads to; the url says so unless a test does."""

    DeviceOptions: ClassVar[type[BaseModel]] = options.DeviceOptions
    TagOptions: ClassVar[type[BaseModel]] = options.TagOptions

    def __init__(
        self, devices: Sequence[Device], *, clock: Clock, metrics: Metrics, endpoint: Endpoint | None = None
    ) -> None:
        wishes = [plan.options_of(device) for device in devices]
        self._devices = [device.name for device in devices]
        self._clock = clock
        self._metrics = metrics
        self._gaps: dict[int, float] = {}
        for wish in wishes:  # two devices of the file may be one unit: the careful value counts
            self._gaps[wish.unit] = max(self._gaps.get(wish.unit, 0.0), wish.request_gap)
        self._stations = {wish.unit: device for wish, device in zip(wishes, devices, strict=True)}
        route = route_of(devices[0].url, wishes[0].backup)
        said = {"parameters": route.parameters} if route.parameters else {}
        head = {"driver": "modbus", "url": devices[0].url, "framing": route.framing, **said}
        self._tape = Tape(endpoint or route.endpoint, head)
        self._client = transport_of(
            route,
            wishes,
            gaps=self._gaps,
            clock=clock,
            metrics=metrics,
            endpoint=self._tape,
        )
        self._writer = Writer(self._ask_now, metrics)
        self._setup = Setup(zip(devices, wishes, strict=True), self._writer, metrics)
        self._prepare(devices, Pace.of(route))

    def __repr__(self) -> str:
        return f"<modbus driver of {', '.join(self._devices)}: {self._client!r}>"

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:
        """`tcp://HOST:PORT`, lower case, or the resolved path of a port. Raises ValueError with the cure."""
        route = route_of(url, options.backup)
        return LineKey(route.port, route.parameters)

    @classmethod
    def compile(cls, device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
        """Check addresses and plan reads. Raises FileError with every mistake found."""
        setup_of(device, plan.options_of(device))
        return plan.compile_groups(device, tags)

    @classmethod
    def check_write(cls, device: Device, tag: Tag) -> None:
        """Raises ValueError with the cure where this tag can never be written."""
        target_of(device, tag, plan.options_of(device))

    @classmethod
    def as_read(cls, device: Device, tag: Tag, value: Value) -> Value:
        """What the tag reads when that value has been written to it. Raises ValueError where it does not fit."""
        return as_read(target_of(device, tag, plan.options_of(device)).slot, value)

    @classmethod
    def explain(cls, devices: Sequence[Device], groups: Sequence[ScanGroup]) -> Explanation:
        """How the devices of one line will be read, and how busy that keeps a serial line."""
        return budget.explain(groups, Pace.of(route_of(devices[0].url)))

    @classmethod
    def bare(cls, url: str, units: Sequence[int], *, timeout_s: float | None, clock: Clock, metrics: Metrics) -> Self:
        """A driver of a line that no file describes. Raises ValueError with the cure. No I/O."""
        return cls(devices_of(url, units, timeout_s), clock=clock, metrics=metrics)

    @classmethod
    def simulate(cls) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Start simulated devices on loopback; gives the `devices` section of a gateway file that reads them."""
        from drivers.modbus.simulate import simulate  # noqa: PLC0415 - pymodbus is for demo and tests only

        return simulate()

    @classmethod
    def simulate_load(cls, devices: int, tags: int, every: str) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Serve many cheap devices on loopback, for measuring; gives the `devices` section that polls them."""
        from drivers.modbus.load import serve  # noqa: PLC0415 - for the bench only

        return serve(devices, tags, every)

    async def __aenter__(self) -> Self:
        """Connect. Raises LineError."""
        await self._client.open()
        self._setup.expect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. What was found out about the devices is kept for the next time."""
        await self._client.close()

    async def write(self, device: Device, tag: Tag, value: Value, *, is_wanted: IsWanted | None = None) -> None:
        """Write one raw value now. Raises ValueError before anything is sent, TagError, DeviceError or LineError.

        ExpiredError: `is_wanted` said no when its turn came, so nothing was sent.
        """
        target = target_of(device, tag, plan.options_of(device))
        if device.name in self._setup.pending:
            await self._setup.perform(device.name)
        await self._writer.write(target, value, is_wanted)

    async def read_tag(self, device: Device, tag: Tag) -> Value:
        """The tag's raw value now. Raises TagError, DeviceError or LineError."""
        if device.name in self._setup.pending:
            await self._setup.perform(device.name)
        return await self._writer.read(device, tag, plan.options_of(device))

    def _ask_now(
        self, own: options.DeviceOptions, requests: Sequence[Request], is_wanted: IsWanted | None
    ) -> Awaitable[Exchange]:
        """Ask a unit before whatever waits."""
        gap_s = self._gaps.get(own.unit, 0.0)
        return self._client.fetch(requests, timeout_s=own.timeout, gap_s=gap_s, urgent=True, is_wanted=is_wanted)
