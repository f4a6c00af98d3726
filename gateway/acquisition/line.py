"""One task per line: connect, poll what is due, and turn answers and failures into batches with quality.

What every driver needs and none should repeat lives here: intervals, back-off, scaling, report by exception, the
process image, device states, and one log line when a device goes and one when it returns.

States of a device, and what moves it:

    unknown ──good read──▶ online ──DeviceError, LineError──▶ offline ──good read──▶ online
       └──DeviceError, LineError──▶ offline (each further failure only counts)

An offline device is asked again after its back-off, with one group; the line's other devices wait for at most that one
timeout. A device that answers in part stays online, but is asked again after a back-off all the same: what it leaves
unanswered costs the line time. A lost line is left and entered anew after the line's back-off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import random

from gateway.acquisition.deadband import Report
from gateway.acquisition.scaling import Scaling
from gateway.acquisition.schedule import Schedule, first_due
from gateway.backoff import Backoff
from gateway.clock import Clock
from gateway.driver import Driver
from gateway.errors import DeviceError, LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import Batch, Device, DeviceState, ScanGroup, bad

log = logging.getLogger("headgate.line")

Sink = Callable[[Batch], None]
StateSink = Callable[[DeviceState], None]

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0
"""A meter whose power returns is read again within half a minute."""

_LONGEST_SLEEP_S = 3600.0
"""A line without groups sleeps too; event loops refuse an infinite timer."""


@dataclass(slots=True, eq=False)
class _Unit:
    """A device on the line and how it fares."""

    device: Device
    backoff: Backoff
    online: bool | None = None
    cause: str = ""
    since: int = 0
    retry_at: float = 0.0
    stations: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Station:
    """One scan group with its stages."""

    group: ScanGroup
    unit: _Unit
    scaling: Scaling
    report: Report


class Line:
    """All devices behind one connection or port. `run` is the task; it ends only by cancellation.

    `sink` takes each batch that is worth sending; it must not block, await or raise. `on_state` hears of each change of
    a device's state. `number` counts the groups of the lines before this one, so that phases spread over all lines.
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
        number: int = 0,
        dice: Callable[[], float] = random,
    ) -> None:
        self.name = name
        self._driver = driver
        self._sink = sink
        self._image = image
        self._on_state = on_state
        self._clock = clock
        self._metrics = metrics
        self._dice = dice
        self._number = number
        self._backoff = self._new_backoff()
        self._units: list[_Unit] = []
        self._stations: list[_Station] = []
        for device, groups in devices:
            self._add(device, groups)
        self._schedule = Schedule([], [])
        self._polls = metrics.counter("line_polls_total", line=name)
        self._failures = metrics.counter("line_failures_total", line=name)
        metrics.gauge("line_missed_polls_total", lambda: self._schedule.missed, line=name)
        self._samples = metrics.counter("line_values_total", line=name)

    def __repr__(self) -> str:
        states = ", ".join(f"{u.device.name}: {_word(u.online)}" for u in self._units)
        return f"<Line {self.name} ({states})>"

    def _new_backoff(self) -> Backoff:
        return Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S, dice=self._dice)

    def _add(self, device: Device, groups: Sequence[ScanGroup]) -> None:
        unit = _Unit(device, self._new_backoff())
        self._units.append(unit)
        for group in groups:
            unit.stations.append(len(self._stations))
            self._stations.append(_Station(group, unit, Scaling(group), Report(group)))
            self._image.add(group)

    async def run(self) -> None:
        """Connect, poll, and connect again, until cancelled. Anything but a FieldError is a bug and goes through."""
        start = self._clock.monotonic()
        periods = [s.group.every_s for s in self._stations]
        self._schedule = Schedule(periods, [first_due(self._number + i, p, start) for i, p in enumerate(periods)])
        # One driver for all connections: what it has learned of its devices outlives each.
        driver = self._driver([unit.device for unit in self._units], clock=self._clock, metrics=self._metrics)
        crashed = True
        try:
            while True:
                try:
                    async with driver:
                        await self._poll(driver)
                except LineError as error:
                    self._lose_line(error)
                    await asyncio.sleep(self._backoff.next_s())
                    self._schedule.resume(self._clock.monotonic())
        except asyncio.CancelledError:
            crashed = False
            raise
        finally:
            if crashed:  # the supervisor will start us again; until then nobody may take old values for new ones
                self._lose_line(LineError("the line's task failed", cause="offline"))

    async def _poll(self, driver: Driver) -> None:
        """Read what is due, one group at a time, until the line fails."""
        schedule, clock, stations = self._schedule, self._clock, self._stations
        while True:
            now = clock.monotonic()
            due = schedule.pop(now)
            if due is None:
                await asyncio.sleep(min(schedule.next_due - now, _LONGEST_SLEEP_S))
                continue
            station = stations[due]
            if station.unit.retry_at > now:
                continue
            self._polls.value += 1
            try:
                batch = await driver.read(station.group)
            except DeviceError as error:
                self._on_failure(station, error, due)
                continue
            if station.unit.backoff.failures or not station.unit.online:
                self._recover(station.unit, due)
            self._pass_on(station, batch)

    def _pass_on(self, station: _Station, batch: Batch) -> None:
        """Scale, note in the image, and send what is worth sending."""
        values, quality = station.scaling.apply(batch.values, batch.quality, batch.index)
        if values is not batch.values or quality is not batch.quality:
            batch = Batch(station.group, batch.time, values, quality, batch.index, batch.times, batch.raw)
        self._samples.value += len(values)
        self._image.note(batch)
        news = station.report(batch, self._clock.monotonic())
        if news is not None:
            self._sink(news)

    def _recover(self, unit: _Unit, due: int) -> None:
        """The unit gave an answer: everything else it has is read without waiting for its turn."""
        self._backoff.reset()
        unit.backoff.reset()
        unit.retry_at = 0.0
        if unit.online is False:
            now = self._clock.monotonic()
            for i in unit.stations:
                if i != due:
                    self._schedule.hurry(i, now)
        self._set_state(unit, online=True, cause="", text="")

    def _on_failure(self, station: _Station, error: DeviceError, due: int) -> None:
        """Let the unit rest; what it did answer is kept, and where it answered nothing its tags have no value."""
        unit = station.unit
        self._failures.value += 1
        unit.retry_at = self._clock.monotonic() + unit.backoff.next_s()
        self._schedule.hurry(due, unit.retry_at)
        if error.partial is not None:
            self._set_state(unit, online=True, cause="", text="")
            self._pass_on(station, error.partial)
            return
        self._mark(unit, error.cause)
        self._set_state(unit, online=False, cause=error.cause, text=str(error))

    def _lose_line(self, error: LineError) -> None:
        self._failures.value += 1
        for unit in self._units:
            self._mark(unit, error.cause)
            self._set_state(unit, online=False, cause=error.cause, text=str(error))

    def _mark(self, unit: _Unit, cause: str) -> None:
        """Every tag of the unit has no value now, for this cause."""
        quality, time = bad(cause), self._clock.wall_ms()
        for i in unit.stations:
            station = self._stations[i]
            self._pass_on(station, Batch(station.group, time, [None] * len(station.group.names), quality))

    def _set_state(self, unit: _Unit, *, online: bool, cause: str, text: str) -> None:
        """Tell of a change of state once; a new cause of the same outage is only noted."""
        if unit.online is online:
            unit.cause = cause
            return
        now = self._clock.wall_ms()
        if not online:
            log.info("device '%s' is offline (%s): %s; asking again until it answers", unit.device.name, cause, text)
        elif unit.online is None:
            log.info("device '%s' is online", unit.device.name)
        else:
            log.info("device '%s' is online again after %d s", unit.device.name, (now - unit.since) // 1000)
        unit.online, unit.cause, unit.since = online, cause, now
        state = DeviceState(unit.device.name, online, cause, now)
        self._image.states[unit.device.name] = state
        self._on_state(state)


def _word(online: bool | None) -> str:  # noqa: FBT001 - a state, not a switch
    return {True: "online", False: "offline", None: "unknown"}[online]
