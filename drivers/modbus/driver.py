"""The driver: one Modbus TCP connection, the units on it, and what they were found not to answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BaseModel

from drivers.modbus import options, plan
from drivers.modbus.client import Answer, Client, Exchange
from drivers.modbus.holes import Node, Survey
from drivers.modbus.pdu import Failure, Request
from drivers.modbus.plan import Block, Plan
from drivers.stream import Endpoint, Tcp
from gateway.clock import Clock
from gateway.driver import LineKey
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, Device, Quality, ScanGroup, Tag, Value, bad

log = logging.getLogger("headgate.modbus")

PORT = 502
EXTRA_REQUESTS = 32
"""How many requests a read may spend on finding out what a device refuses; the rest has time until the next one."""

_NOT_YET = ("rtu", "ascii", "rtuovertcp", "rtu+tcp", "udp", "tls", "mbaps")


class Driver:
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
        self._client = Client(
            endpoint or endpoint_of(devices[0].url),
            units=frozenset(self._gaps),
            timeout_s=max(w.timeout for w in wishes),
            connect_delay_s=max(w.connect_delay for w in wishes),
            max_in_flight=min(w.max_in_flight for w in wishes),
            clock=clock,
            metrics=metrics,
        )
        self._surveys: dict[ScanGroup, Survey] = {}

    def __repr__(self) -> str:
        return f"<modbus driver of {', '.join(self._devices)}: {self._client!r}>"

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:  # noqa: ARG003 - no option makes two lines of one port
        """`tcp://HOST:PORT`, lower case, with the port. Raises ValueError with the cure."""
        return LineKey(str(endpoint_of(url)))

    @classmethod
    def compile(cls, device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
        """Check addresses and plan reads. Raises FileError with every mistake found."""
        return plan.compile_groups(device, tags)

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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. What was found out about the devices is kept for the next time."""
        await self._client.close()

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once, raw. Tags that are refused alone come back as None with their quality.

        Raises DeviceError when the unit is silent, busy or beyond reach; `partial` holds what came before that.
        Raises LineError when the connection is gone.
        """
        how: Plan = group.plan
        survey = self._surveys.get(group)
        if survey is not None:
            ask, leave = survey.begin(self._clock.monotonic(), EXTRA_REQUESTS)
            exchange = await self._fetch(how, [node.block.request for node in ask])
        else:
            exchange = await self._fetch(how, how.requests)
            if exchange.clean:
                return _whole(group, how, exchange.answers, exchange.time)
            survey = self._surveys[group] = Survey(how.blocks)
            ask, leave = survey.roots, []
        reading = _Reading(group, survey, self._clock.monotonic())
        reading.leave(leave)
        extra = EXTRA_REQUESTS - sum(node.doubt is not None for node in ask)
        while ask := reading.take(ask, exchange)[:extra]:
            extra -= len(ask)
            exchange = await self._fetch(how, [node.block.request for node in ask])
        self._report(reading)
        if survey.is_clear:
            self._surveys.pop(group, None)
        return reading.result()

    def _fetch(self, how: Plan, requests: Sequence[Request]) -> Awaitable[Exchange]:
        own = how.options
        return self._client.fetch(requests, timeout_s=own.timeout, gap_s=self._gaps.get(own.unit, 0.0))

    def _report(self, reading: _Reading) -> None:
        """Count what failed, and say once what is read around and what is back."""
        device = reading.group.device
        for failed in reading.failures:
            self._metrics.counter("modbus_failures_total", device=device, cause=failed.cause).value += 1
        if reading.cut:
            text = "%s: asked for in parts, for in one piece they fail (%s): %s"
            log.info(text, device, _why(reading.cut), _some(str(node.block) for node in reading.cut))
        if reading.lost:
            text = "%s: left out from now on, and tried again now and then (%s): %s"
            log.info(text, device, _why(reading.lost), _some(_tags(reading.lost)))
        if reading.found:
            log.info("%s: answers again: %s", device, _some(_tags(reading.found)))


def endpoint_of(url: str) -> Tcp:
    """The TCP port that a device's url means. Raises ValueError with the cure."""
    cure = f"Use tcp://HOST[:{PORT}]"
    if "@" in url:  # before anything quotes it
        raise ValueError(f"a Modbus device knows no login. {cure}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"'{url}': {error}. {cure}") from None
    if parts.scheme in _NOT_YET:
        raise ValueError(
            f"{parts.scheme}:// lines are not built yet, they come with a later version. "
            f"{cure}, for example through a gateway from Modbus TCP to the serial line"
        )
    if parts.scheme != "tcp":
        raise ValueError(f"'{url}' is no url of a Modbus device. {cure}")
    if not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"'{url}' must hold a host and a port and nothing else. {cure}")
    return Tcp(host, PORT if port is None else port)


def _why(nodes: Iterable[Node]) -> str:
    return next((node.failure.text for node in nodes if node.failure is not None), "")


def _tags(nodes: Iterable[Node]) -> Iterator[str]:
    """Names of the tags they feed, in the order of the file."""
    slots = sorted((slot for node in nodes for slot in node.block.slots), key=lambda slot: slot.position)
    return (slot.tag.name for slot in slots)


def _some(names: Iterable[str]) -> str:
    """The first few of them: a line of a log is read by people."""
    known = list(names)
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return ", ".join(known[:5]) + more


# --- one read -------------------------------------------------------------------------------------------------------


def _whole(group: ScanGroup, how: Plan, answers: Sequence[Answer], time: int) -> Batch:
    """The batch of a read in which every block answered."""
    payloads = [answer for answer in answers if isinstance(answer, bytes)]
    values = how.decode(payloads)
    if how.fallible and None in values:
        return Batch(group, time, values, [bad("decode") if value is None else GOOD for value in values])
    return Batch(group, time, values, raw=b"".join(payloads))


class _Reading:
    """One read that did not go smoothly: what each tag got, and what the survey learns from it."""

    def __init__(self, group: ScanGroup, survey: Survey, now: float) -> None:
        self.group = group
        self.failures: list[Failure] = []
        self.cut: list[Node] = []  # blocks of the plan that are asked for in parts since this read
        self.lost: list[Node] = []  # holes since this read
        self.found: list[Node] = []  # holes no more
        self._survey = survey
        self._now = now
        self._values: list[Value] = [None] * len(group.names)
        self._quality: list[Quality] = [GOOD] * len(group.names)
        self._answered = 0
        self._time = 0
        self._stop: tuple[Block, Failure] | None = None
        self._busy: tuple[Block, Failure] | None = None

    def leave(self, nodes: Sequence[Node]) -> None:
        """These are not asked for: they are known to fail, or it is not their turn to be found out."""
        for node in nodes:
            if failure := node.failure or node.doubt:
                self._fail(node.block, failure)

    def take(self, asked: Sequence[Node], exchange: Exchange) -> list[Node]:
        """Note one round of answers. Returns what is to be asked for in the next one."""
        self._time = exchange.time
        self._answered += sum(isinstance(answer, bytes) for answer in exchange.answers)
        further: list[Node] = []
        unasked: list[Node] = []
        for node, answer in zip(asked, exchange.answers, strict=True):
            if answer is None:
                unasked.append(node)
            elif isinstance(answer, Failure):
                further += self._on_failure(node, answer)
            else:
                self._on_answer(node, answer)
        for node in unasked:
            self._fail(node.block, self.failures[-1])  # until it is asked for, or for good when the read ends here
        return further + unasked if self._stop is None else []

    def result(self) -> Batch:
        """The batch, or the DeviceError it is part of."""
        same = all(quality == self._quality[0] for quality in self._quality)
        batch = Batch(self.group, self._time, self._values, self._quality[0] if same else self._quality)
        failed = self._stop or (None if self._answered else self._busy)
        if failed is None:
            return batch
        block, failure = failed
        request = block.request
        text = f"{self.group.device} (unit {request.unit}): {block} (function {request.function}): {failure.text}"
        raise DeviceError(text, cause=failure.cause, partial=batch if self._answered else None)

    def _on_answer(self, node: Node, payload: bytes) -> None:
        self.found += node.holes()
        self._survey.note_answer(node)
        for slot, value in zip(node.block.slots, node.block.decode(payload), strict=True):
            self._values[slot.position] = value
            self._quality[slot.position] = bad("decode") if value is None else GOOD

    def _on_failure(self, node: Node, failure: Failure) -> list[Node]:
        self.failures.append(failure)
        self._fail(node.block, failure)
        was_well = node.failure is None
        if failure.act == "unit":
            parts = self._survey.note_silence(node, failure, self._now, others_answered=self._answered > 0)
            if was_well or not self._answered:  # else it was a trial of what is known to be silent
                self._stop = (node.block, failure)
        else:
            parts = self._survey.note_failure(node, failure, self._now)
            if failure.act == "busy":
                self._busy = (node.block, failure)
        if was_well and node.failure is not None and not node.parts:
            self.lost.append(node)
        elif was_well and node.parts and node in self._survey.roots:
            self.cut.append(node)
        return parts

    def _fail(self, block: Block, failure: Failure) -> None:
        for slot in block.slots:
            self._values[slot.position] = None
            self._quality[slot.position] = bad(failure.cause)
