"""The part of the driver that the frame's polls use: read a group, probe a device, and what is learned on the way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.exchange import Exchange, Transport
from drivers.modbus.lines.pace import Pace
from drivers.modbus.polling import plan
from drivers.modbus.polling.block import Block, Plan, ask
from drivers.modbus.polling.course import Course
from drivers.modbus.polling.holes import Node
from drivers.modbus.polling.learning import Finding, Learned, Limit
from drivers.modbus.polling.reading import Reading, whole
from drivers.modbus.setup import Setup
from drivers.modbus.values.slots import locate
from gateway.clock import Clock
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.model import Batch, Device, ScanGroup

log = logging.getLogger("headgate.modbus")

EXTRA_REQUESTS = 32
"""How many requests a read may spend on finding out what a device refuses; the rest has time until the next one."""

_READS_BETWEEN = 64
"""After how many reads a unit's turnaround is looked at again."""
_READS_AT_FIRST = 8


class Poller:
    """How groups are read. The driver makes what is declared here."""

    _client: Transport
    _clock: Clock
    _metrics: Metrics
    _setup: Setup
    _gaps: dict[int, float]
    """For each unit how long it wants to be left in peace after an answer, in seconds."""

    def _prepare(self, devices: Sequence[Device], pace: Pace) -> None:
        """Begin without having learned anything. Two devices of the file may be one unit: they learn together."""
        units = {plan.options_of(device).unit for device in devices}
        self._pace = pace
        self._is_paced = pace.is_known
        self._learned = {unit: Learned() for unit in units}
        self._until_review = dict.fromkeys(units, _READS_AT_FIRST)
        self._courses: dict[ScanGroup, Course] = {}

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once, raw. Tags that are refused alone come back as None with their quality.

        Raises DeviceError when the unit is silent, busy or beyond reach; `partial` holds what came before that.
        Raises LineError when the connection is gone.
        """
        if group.device in self._setup.pending:
            await self._setup.perform(group.device)
        course = self._courses.get(group) or self._begin(group)
        survey, how = course.survey, course.plan  # both may be made anew while we wait
        if survey is None:
            exchange = await self._client.fetch(how.requests, timeout_s=course.timeout_s, gap_s=course.gap_s)
            if exchange.clean:
                if not course.answered:
                    self._note_well(course, how)
                if self._is_paced:
                    self._keep_pace(course)
                return whole(group, how, exchange.answers, exchange.time)
            survey = course.doubt(how)
            ask, leave = survey.roots, list[Node]()
        else:
            ask, leave = survey.begin(self._clock.monotonic(), EXTRA_REQUESTS)
            exchange = await self._fetch(course, [node.block.request for node in ask])
        learned = self._learned[course.unit]
        reading = Reading(group, survey, self._clock.monotonic(), vouched=learned.vouched)
        learned.vouched = False
        reading.leave(leave)
        extra = EXTRA_REQUESTS - sum(node.doubt is not None for node in ask)
        while ask := reading.take(ask, exchange)[:extra]:
            extra -= len(ask)
            exchange = await self._fetch(course, [node.block.request for node in ask])
        self._report(reading)
        if survey.is_clear and course.survey is survey:
            course.survey = None
        await self._learn(course, reading)
        try:
            return reading.result()
        except DeviceError as error:
            if error.partial is None:
                self._setup.expect(group.device)
            raise

    async def probe(self, device: Device) -> None:
        """Ask for the least that this unit has ever answered, or else for the least that one of its tags needs.

        An answer vouches for the unit in its next read that fails: a block that is silent then may be to blame itself.
        A device that waits for its setup gets it now: without it, it is not back.
        Raises DeviceError when it is silent, busy or beyond reach, LineError when the connection is gone.
        """
        own = plan.options_of(device)
        learned = self._learned[own.unit]
        request = learned.cheapest or _least(device)
        if request is None:
            return
        exchange = await self._client.fetch((request,), timeout_s=own.timeout, gap_s=self._gaps[own.unit])
        (answer,) = exchange.answers
        if isinstance(answer, Failure) and answer.act in ("unit", "busy"):
            text = f"{device.name} (unit {own.unit}): probed (function {request.function}): {answer.text}"
            raise DeviceError(text, cause=answer.cause)
        learned.vouched = True
        if device.name in self._setup.pending:
            await self._setup.perform(device.name)

    def lessons(self) -> dict[str, Any]:
        """What was learned of each unit, as a JSON-able document. What is too old by now is forgotten."""
        for unit, learned in self._learned.items():
            if learned.forget(self._clock.wall_ms()):
                self._replan(unit)
        measured = {unit: self._client.statistics.turnaround(unit) for unit in self._learned}
        return {
            "units": {
                str(unit): learned.document(measured[unit])
                for unit, learned in self._learned.items()
                if learned.version or (self._is_paced and measured[unit])
            }
        }

    def recall(self, lessons: Mapping[str, Any]) -> None:
        """Take up what `lessons` gave in an earlier run; what does not fit, or is too old, is left out, silently."""
        units = lessons.get("units")
        for unit, learned in self._learned.items():
            if isinstance(units, Mapping):
                learned.recall(units.get(str(unit)), self._clock.wall_ms())
                self._replan(unit)

    def _begin(self, group: ScanGroup) -> Course:
        """The first read of a group."""
        unit = group.plan.options.unit
        now = self._clock.monotonic()
        course = Course(group, self._learned[unit], self._pace, self._gaps[unit], now)
        self._courses[group] = course
        return course

    def _fetch(self, course: Course, requests: Sequence[Request]) -> Awaitable[Exchange]:
        return self._client.fetch(requests, timeout_s=course.timeout_s, gap_s=course.gap_s)

    # --- learning ---

    async def _learn(self, course: Course, reading: Reading) -> None:
        """Take up what this read has confirmed, and ask one question of those that are open."""
        learned = self._learned[course.unit]
        before = learned.version
        course.learn(reading, self._clock.wall_ms())
        inquiry = course.inquiry
        if inquiry is not None and not reading.is_over:
            if inquiry.request is not None:
                inquiry.take((await self._fetch(course, (inquiry.request,))).answers[0])
            if inquiry.request is None:
                course.inquiry = None
                if inquiry.finding is not None:
                    self._take_up(course, inquiry.block, inquiry.finding)
        if learned.version != before:
            self._replan(course.unit)

    def _note_well(self, course: Course, how: Plan) -> None:
        """A whole plan has answered, and what seemed to be refused may be among it."""
        learned = self._learned[course.unit]
        before = learned.version
        course.note_well(how)
        if learned.version != before:
            self._replan(course.unit)

    def _take_up(self, course: Course, block: Block, finding: Finding) -> None:
        """Make what an inquiry has found a fact of the unit."""
        learned, function, now_ms = self._learned[course.unit], block.request.function, self._clock.wall_ms()
        if isinstance(finding, Limit):
            most = learned.limit(function, finding.most, now_ms)
            text = "%s: takes %d at once and not %s: asked for in requests of that size from now on"
            log.info(text, course.group.device, most, block)
        elif learned.refuse(function, finding.span, "", now_ms):
            log.info("%s: not read across %d from now on: %s is refused", course.group.device, finding.span[0], block)

    def _replan(self, unit: int) -> None:
        """The unit is to be asked on other terms: so is every group that reads it."""
        now = self._clock.monotonic()
        for course in self._courses.values():
            if course.unit == unit:
                course.replan(now)

    def _keep_pace(self, course: Course) -> None:
        """Now and then look at how fast the unit is, and plan anew where that makes requests cheaper or dearer."""
        unit = course.unit
        self._until_review[unit] -= 1
        if self._until_review[unit] > 0:
            return
        self._until_review[unit] = _READS_BETWEEN
        measured = self._client.statistics.turnaround(unit)
        if measured is not None and self._learned[unit].note_turnaround(measured, self._pace):
            self._replan(unit)

    def _report(self, reading: Reading) -> None:
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


def _least(device: Device) -> Request | None:
    """The smallest request that reads one of the device's tags."""
    own = plan.options_of(device)
    requests = (ask(own.unit, [locate(tag, own)]) for tag in device.tags)
    return min(requests, key=lambda request: request.size or 256, default=None)


def _why(nodes: Iterable[Node]) -> str:
    return next((node.failure.text for node in nodes if node.failure is not None), "")


def _tags(nodes: Iterable[Node]) -> Iterator[str]:
    """Names of the tags they feed, in the order of the file; those of a part say whose."""
    slots = sorted((s for node in nodes for s in node.block.slots if not s.hidden), key=lambda slot: slot.position)
    return (f"{slot.tag.part}/{slot.tag.name}" if slot.tag.part else slot.tag.name for slot in slots)


def _some(names: Iterable[str]) -> str:
    """The first few of them: a line of a log is read by people."""
    known = list(names)
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return ", ".join(known[:5]) + more
