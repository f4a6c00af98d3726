"""One task per line: connect, poll what is due, and turn answers and failures into batches with quality.

What a driver is told by itself is listened to beside the polls, in the same connection: both end together, with the
first of them that fails. To listen is to wait, so the watchdog looks at the polls alone.

What every driver needs and none should repeat lives here and in the rooms beside: intervals (`schedule.py`), scaling,
report by exception, the process image, and what happens when a device or the line itself is gone (`roster.py`,
`health.py`): back-off, states, and one log line when a device goes and one when it returns.

A sick device is not polled: it is probed in its turn, with the driver's probe or, where there is none, by reading one
of its groups; failures take a tenth of the line's time at most, so that the healthy keep their periods. A lost line is
left and entered anew after the line's own back-off. A driver that does not return is called back by the watchdog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import random
from typing import Any, NoReturn, Protocol

from gateway.acquisition.news import News
from gateway.acquisition.parting import Outlet, deal
from gateway.acquisition.roster import DeviceHealth, Roster, Station, Unit
from gateway.acquisition.schedule import NEVER
from gateway.acquisition.together import end, first_of
from gateway.acquisition.usage import Usage, Watchdog
from gateway.backoff import Backoff
from gateway.clock import Clock
from gateway.driver import Driver, Learns, Probes, Regroups
from gateway.errors import DeviceError, LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import Batch, Device, DeviceState, ScanGroup, Value

log = logging.getLogger("headgate.line")

Sink = Callable[[Batch], None]
StateSink = Callable[[DeviceState], None]

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0
"""A line that can be reached again is entered within half a minute."""

_LONGEST_SLEEP_S = 3600.0
"""A line without groups sleeps too; event loops refuse an infinite timer."""

_COLLECT_S = 600.0
"""How often a driver is asked what it has learned, over and above whenever its connection ends."""


class Memory(Protocol):
    """Where what drivers have learned outlives the process."""

    def recall(self, line: str) -> Mapping[str, Any] | None:
        """What `keep` was given last for this line, now or in an earlier run."""
        ...

    def keep(self, line: str, lessons: Mapping[str, Any]) -> None:
        """Take what was learned so far."""
        ...


@dataclass(frozen=True, slots=True)
class LineStatus:
    """How a line fares. `busy`, `sick`: the shares of the last minute, 0 to 1, of all polls and of failed ones alone.

    `missed`: polls left out since the line was started, because it was busy when they were due.
    """

    name: str
    connected: bool
    busy: float
    sick: float
    missed: int


class Line:
    """All devices behind one connection or port. `run` is the task; it ends only by cancellation.

    `sink` takes each batch that is worth sending; it must not block, await or raise. `on_state` hears of each change of
    a device's state. `number` counts the groups of the lines before this one, so that phases spread over all lines.
    `on_groups` hears of the groups of a device that its driver has made other ones of, after it asked the device.
    `memory` keeps what the driver learns. `room` returns when so much can be sent at once as history brings.
    """

    def __init__(
        self,
        name: str,
        driver: type[Driver],
        devices: Sequence[tuple[Device, Sequence[ScanGroup]]],
        *,
        sink: Sink,
        image: Image,
        on_state: StateSink,
        clock: Clock,
        metrics: Metrics,
        on_groups: Callable[[Sequence[ScanGroup]], None] | None = None,
        number: int = 0,
        memory: Memory | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
        dice: Callable[[], float] = random,
    ) -> None:
        self.name = name
        self._driver = driver
        self._sink = sink
        self._image = image
        self._on_state = on_state
        self._on_groups = on_groups
        self._clock = clock
        self._metrics = metrics
        self._number = number
        self._memory = memory
        self._news = News(clock, room)
        self._connected: Driver | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S, dice=dice)
        self._roster = Roster(
            name, devices, pass_on=self._pass_on, tell=self._tell, clock=clock, metrics=metrics, dice=dice
        )
        self._compiled = {unit: [station.group for station in unit.stations] for unit in self._roster.units}
        for group in (outlet.group for unit in self._roster.units for s in unit.stations for outlet in s.outlets):
            image.add(group)
        self._usage = Usage(clock.monotonic())
        self._watchdog = Watchdog(name, self._usage, clock, _longest_read(self._roster.stations))
        self._polls = metrics.counter("line_polls_total", line=name)
        self._failures = metrics.counter("line_failures_total", line=name)
        self._samples = metrics.counter("line_values_total", line=name)
        self._show_gauges()

    def __repr__(self) -> str:
        return f"<Line {self.name} ({self._roster!r})>"

    def _show_gauges(self) -> None:
        show, usage = self._metrics.gauge, self._usage
        show("line_missed_polls_total", lambda: self._roster.missed, line=self.name)
        show("line_busy_seconds_total", lambda: usage.busy_s, line=self.name)
        show("line_sick_seconds_total", lambda: usage.sick_s, line=self.name)
        show("line_busy_ratio", lambda: self._shares()[0], line=self.name)
        show("line_sick_ratio", lambda: self._shares()[1], line=self.name)
        show("line_watchdog_bites_total", lambda: self._watchdog.bites, line=self.name)

    # --- seen from outside ---

    @property
    def driver(self) -> Driver | None:
        """The connected driver, None while there is no connection. Who asks it for anything uses `borrow`."""
        return self._connected

    @contextmanager
    def borrow(self) -> Iterator[Driver]:
        """The connected driver, to be used beside the polls; the time that takes is nobody's failure.

        Raises LineError while there is no connection.
        """
        if self._connected is None:
            raise LineError(f"{self.name}: there is no connection now; it is tried again by itself", cause="offline")
        self._usage.guest_came(self._clock.monotonic())
        try:
            yield self._connected
        finally:
            self._usage.guest_left(self._clock.monotonic())

    def hurry(self, device: str, tag: str) -> None:
        """Poll that tag soon, whenever its turn would be; a device that is sick keeps its turn."""
        if self._roster.hurry(device, tag):
            self._wake()

    def show(self, device: str, tag: str, raw: Value) -> None:
        """That tag was read just now and held `raw`. Where it is pushed, which may take long, the image has that.

        It is not sent: what comes by itself is, with its own time. What is polled is hurried.
        """
        outlet = self._roster.pushes(device, tag)
        if outlet is not None:
            read = Batch(outlet.group, self._clock.wall_ms(), [raw], index=[outlet.group.names.index(tag)])
            self._image.note(self._scaled(outlet, read))

    def status(self) -> LineStatus:
        """How the line fares."""
        busy, sick = self._shares()
        return LineStatus(self.name, self._connected is not None, busy, sick, self._roster.missed)

    def _shares(self) -> tuple[float, float]:
        return self._usage.shares(self._clock.monotonic())

    def health(self) -> list[DeviceHealth]:
        """How each device fares, in the order of the file."""
        return self._roster.health()

    # --- the task ---

    async def run(self) -> None:
        """Connect, poll, and connect again, until cancelled. Anything but a FieldError is a bug and goes through."""
        self._regroup(self._compiled)  # an earlier run may have left others
        self._roster.start(self._number)
        # One driver for all connections: what it has learned of its devices outlives each.
        driver = self._new_driver()
        crashed = True
        try:
            with self._watchdog.watching():
                while True:
                    self._lose_line(await self._connection(driver))
                    await asyncio.sleep(self._backoff.next_s())
                    self._roster.schedule.resume(self._clock.monotonic())
        except asyncio.CancelledError:
            crashed = False
            raise
        finally:
            if crashed:  # the supervisor will start us again; until then nobody may take old values for new ones
                self._lose_line(LineError("the line's task failed", cause="offline"))

    def _new_driver(self) -> Driver:
        driver = self._make_driver()
        lessons = self._memory.recall(self.name) if self._memory is not None else None
        if lessons is None or not isinstance(driver, Learns):
            return driver
        try:
            driver.recall(lessons)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # It should have left out what does not fit; what it learned once must not keep its line from being polled.
            log.warning("line %s: what its driver learned earlier is of no use to it (%r): forgotten", self.name, error)
            return self._make_driver()
        return driver

    def _make_driver(self) -> Driver:
        return self._driver([unit.device for unit in self._roster.units], clock=self._clock, metrics=self._metrics)

    async def _connection(self, driver: Driver) -> LineError:
        """Connect and poll until the line fails. Returns why it did."""
        clock, usage = self._clock, self._usage
        usage.began = clock.monotonic()
        try:
            async with driver:
                usage.began = NEVER
                self._connected = driver
                try:
                    if isinstance(driver, Regroups):
                        self._regroup(self._asked(driver))
                    await self._serve(driver)
                finally:
                    self._connected = None
                    usage.began = clock.monotonic()
        except LineError as error:
            self._watchdog.is_stop()
            return error
        except asyncio.CancelledError:
            if self._watchdog.is_stop():
                raise
            return LineError("its driver did not return, or gave up without a word", cause="timeout")
        finally:
            usage.began = NEVER
            self._collect(driver)

    def _asked(self, driver: Regroups) -> dict[Unit, Sequence[ScanGroup]]:
        """The groups of each unit in this connection, as its driver knows them."""
        units = self._roster.units
        return {unit: driver.regroup(unit.device, [station.group for station in unit.stations]) for unit in units}

    def _regroup(self, groups: Mapping[Unit, Sequence[ScanGroup]]) -> None:
        """Have these groups, here and in the image, where they are others than before."""
        before = {unit: _outlets_of(unit) for unit in groups}
        changed = {unit: own for unit, own in groups.items() if [s.group for s in unit.stations] != [*own]}
        if not changed:
            return
        self._roster.regroup(changed)
        for unit, own in changed.items():
            self._image.replace(before[unit], _outlets_of(unit))
            if self._on_groups is not None:
                self._on_groups(own)
        self._watchdog.allow(_longest_read(self._roster.stations))

    async def _serve(self, driver: Driver) -> NoReturn:
        """Poll, and listen where there is anything to be told, until the line fails. Raises LineError."""
        roster = self._roster
        for unit in roster.units:
            if not unit.stations and isinstance(driver, Regroups):
                roster.on_life(unit)  # it has been looked at, and there is nothing in it
        if not roster.pushed:
            await self._poll(driver)
        polls = asyncio.create_task(self._poll(driver), name=f"line {self.name}: polls")
        news = asyncio.create_task(self._news.listen(driver, roster.pushed, self._take), name=f"line {self.name}: news")
        try:
            failed = await first_of((polls, news))
        finally:
            self._usage.began = self._clock.monotonic()
            await end((polls, news))
        failed.result()

    def _take(self, station: Station, batch: Batch, now: float) -> None:
        """One batch of a group that is pushed. What is history is not what is: it is only sent."""
        if batch.is_history:
            for outlet, part in _dealt(station, batch):
                self._sink(self._scaled(outlet, part))
            return
        is_awaited = self._roster.on_news(station, now)
        if is_awaited:
            self._backoff.reset()
        self._pass_on(station, batch, now)
        if self._roster.expect_beats(station) or is_awaited:
            self._wake()

    async def _poll(self, driver: Driver) -> NoReturn:
        """Read what is due, one group at a time, until the line fails."""
        roster, schedule, stations = self._roster, self._roster.schedule, self._roster.stations
        clock, usage, polls = self._clock, self._usage, self._polls
        turn = roster.turn
        roster.set_turn()
        roster.set_beats()
        schedule.call(roster.chores, clock.monotonic() + _COLLECT_S, _COLLECT_S)
        while True:
            now = clock.monotonic()
            due = schedule.pop(now)
            if due is None:
                await self._doze(min(schedule.next_due - now, _LONGEST_SLEEP_S))
                continue
            if due >= turn:
                await self._attend(driver, due, now)
                continue
            station = stations[due]
            polls.value += 1
            usage.began = now
            try:
                batch = await driver.read(station.group)
            except DeviceError as error:
                self._on_failure(station.unit, station, error)
                continue
            done = clock.monotonic()
            usage.began = NEVER
            usage.busy_s += done - now
            if not station.unit.is_well:
                self._backoff.reset()
                roster.on_life(station.unit)
            self._pass_on(station, batch, done)

    async def _doze(self, seconds: float) -> None:
        """Sleep until it is time, or until somebody is in a hurry."""
        loop = asyncio.get_running_loop()
        self._sleep = sleep = loop.create_future()
        timer = loop.call_later(seconds, _end, sleep)
        try:
            await sleep
        finally:
            timer.cancel()

    def _wake(self) -> None:
        """What is due may have changed."""
        if self._sleep is not None:
            _end(self._sleep)

    async def _attend(self, driver: Driver, due: int, now: float) -> None:
        """What falls due now and then, beside the polls."""
        if due == self._roster.chores:
            self._collect(driver)
            self._roster.schedule.call(due, now + _COLLECT_S, _COLLECT_S)
            return
        if due == self._roster.beats:
            self._repeat(now)
            return
        patient = self._roster.next(now)
        if isinstance(patient, Station):
            await self._visit(driver, patient.unit, patient, now)
        elif patient is not None:
            patient.probes.value += 1
            await self._visit(driver, patient, None if isinstance(driver, Probes) else patient.pulse(), now)

    async def _visit(self, driver: Driver, unit: Unit, station: Station | None, now: float) -> None:
        """Ask one of the sick whether it still is, with a read of `station`, or a probe where that is None."""
        batch: Batch | None = None
        self._usage.began = now
        try:
            if station is not None:
                self._polls.value += 1
                batch = await driver.read(station.group)
            elif isinstance(driver, Probes):
                await driver.probe(unit.device)
        except DeviceError as error:
            self._on_failure(unit, station, error)
            return
        done = self._clock.monotonic()
        self._usage.began = NEVER
        self._usage.busy_s += done - now
        self._backoff.reset()
        self._roster.on_return(unit, station, done)
        if station is not None and batch is not None:
            self._pass_on(station, batch, done)

    def _repeat(self, now: float) -> None:
        """Say again what was silent for too long, of one group a turn: the polls between them are in time."""
        outlet = self._roster.silent(now)
        if outlet is not None:
            batch = self._image.part(outlet.group, outlet.report.overdue(now), self._clock.wall_ms())
            outlet.report.note(batch, now)
            self._sink(batch)
        self._roster.set_beats()

    def _pass_on(self, station: Station, batch: Batch, now: float) -> None:
        """Give each part of the device what is its own."""
        if not station.group.parts:
            self._let_out(station.outlets[0], batch, now)
            return
        for outlet, part in _dealt(station, batch):
            self._let_out(outlet, part, now)

    def _let_out(self, outlet: Outlet, batch: Batch, now: float) -> None:
        """Scale, note in the image, and send what is worth sending."""
        batch = self._scaled(outlet, batch)
        self._image.note(batch)
        news = outlet.report(batch, now)
        if news is not None:
            self._sink(news)

    def _scaled(self, outlet: Outlet, batch: Batch) -> Batch:
        """The batch in engineering values, counted."""
        values, quality = outlet.scaling.apply(batch.values, batch.quality, batch.index)
        self._samples.value += len(values)
        if values is batch.values and quality is batch.quality:
            return batch
        times, served = batch.times, batch.server_times
        return Batch(outlet.group, batch.time, values, quality, batch.index, times, batch.raw, served, batch.is_history)

    def _collect(self, driver: Driver) -> None:
        if self._memory is not None and isinstance(driver, Learns):
            self._memory.keep(self.name, driver.lessons())

    def _on_failure(self, unit: Unit, station: Station | None, error: DeviceError) -> None:
        self._watchdog.is_stop()
        self._failures.value += 1
        if error.partial is not None:
            self._backoff.reset()
        self._roster.on_failure(unit, station, error, self._usage.fail(self._clock.monotonic()))

    def _lose_line(self, error: LineError) -> None:
        self._failures.value += 1
        self._roster.lose_line(error)

    def _tell(self, state: DeviceState) -> None:
        self._image.states[state.device] = state
        self._on_state(state)


def _end(sleep: asyncio.Future[None]) -> None:
    if not sleep.done():
        sleep.set_result(None)


def _dealt(station: Station, batch: Batch) -> Iterator[tuple[Outlet, Batch]]:
    """What each of a group's outlets gets of a batch."""
    if not station.group.parts:
        yield station.outlets[0], batch
    for place, part in deal(batch, station.group.parts):
        yield station.outlets[place], part


def _outlets_of(unit: Unit) -> list[ScanGroup]:
    """The groups of a unit as the world knows them."""
    return [outlet.group for station in unit.stations for outlet in station.outlets]


def _longest_read(stations: Iterable[Station]) -> float:
    """Seconds that no read takes where the driver is as it should be; drivers name their time limit `timeout`."""
    longest = 0.0
    for station in stations:
        timeout_s = getattr(station.unit.device.options, "timeout", None)
        if isinstance(timeout_s, (int, float)):
            longest = max(longest, 10 * timeout_s, 4 * timeout_s * station.group.requests)
    return longest
