"""Commands from wherever they come: checked, put in line, carried out, answered.

    arrival ─▶ retained? repeated? tag? value? limits? expired? ─▶ queue of the device ─▶ offline? too soon? expired?
            ─▶ audit: intent ─▶ write ─▶ read back ─▶ audit: outcome ─▶ answer

Commands to one device are carried out one after the other, in the order in which they came; at most 64 wait for a line.
The writes go before all polls that wait. A command whose turn does not come within 5 s is refused, one that is not
through 10 s after it came is given up.

An id that was seen is refused, also where an earlier run has seen it (ids.py); each sender has its own. A long id,
which no two senders come upon by chance, is refused from everybody where tag and value are the same: two uplinks may
lead to one server, which the gateway cannot tell, and each brings the command. What is refused before anything was sent
to the device may be sent again with the same id. What MQTT marks as sent again (DUP) is refused where nobody can know
whether it was carried out: without an id; or, while ids of an earlier run may be missing, where its `ts` does not show
that it was made in this one. On uplinks sessions are never resumed, so no server sends anything again.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.acquisition.unscaling import unscale
from gateway.clock import Clock
from gateway.commands.audit import Audit
from gateway.commands.ids import Ids, Key, Sender
from gateway.commands.limits import holds, permitted
from gateway.commands.request import RefusalError, Request, parse, show
from gateway.commands.tally import Tally
from gateway.commands.targets import Target, Targets
from gateway.driver import Driver, Mirrors, Writes
from gateway.errors import DeviceError, ExpiredError, HeadgateError, LineError, TagError
from gateway.metrics import Metrics
from gateway.model import DeviceState, Value

DEADLINE_S = 10.0
"""So long after its arrival a command is given up: whoever sent it has done so long before."""

PATIENCE_S = 5.0
"""So long it may wait for its turn: what is sent then has time enough for its answer."""

MOST_WAITING = 64
_UNIQUE = 16
_AHEAD_MS = 60_000
"""A command from further in the future says that one of two clocks is wrong."""


class Line(Protocol):
    """What a write needs of a line; `acquisition.line.Line` is one."""

    def borrow(self) -> AbstractContextManager[Driver]:
        """The connected driver, for use beside the polls. Raises LineError while there is no connection."""

    def hurry(self, device: str, tag: str) -> None:
        """Poll that tag soon, whenever its turn would be."""

    def show(self, device: str, tag: str, raw: Value) -> None:
        """That tag was read beside the polls just now, and held `raw`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A command as it came. `source` and `who` say from where, `answer` takes the reply.

    `is_again`: marked as sent once more. `expires_at`: monotonic time after which it must not be carried out.
    """

    device: str
    tag: str
    payload: bytes
    source: str
    answer: Callable[[dict[str, Any]], None]
    who: Mapping[str, str] = field(default_factory=dict)
    is_retained: bool = False
    is_again: bool = False
    expires_at: float | None = None

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return f"{self.source} ({', '.join(self.who.values())})" if self.who else self.source


@dataclass(slots=True, eq=False)
class _Command:
    """A command that was accepted. Times are monotonic seconds."""

    arrival: Arrival
    request: Request
    target: Target
    value: Value
    came_at: float
    expires_at: float | None
    intent: int | None = None
    is_sent: bool = False
    is_acknowledged: bool = False

    @property
    def give_up_at(self) -> float:
        return self.came_at + DEADLINE_S


class Commands:
    """Takes commands. `run` is the task that carries them out; without it they are refused.

    `lines` gives the line of a name while it runs, `states` the devices' states by name. `is_clock_right`: whether wall
    time can be compared with a command's own. `ids`: those seen before. `audit`: None where there is no
    spool to keep one in.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        lines: Callable[[str], Line | None],
        states: Mapping[str, DeviceState],
        audit: Audit | None,
        ids: Ids,
        is_clock_right: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._targets = targets
        self._lines = lines
        self._states = states
        self._audit = audit
        self._ids = ids
        self._is_clock_right = is_clock_right
        self._clock = clock
        self._tally = Tally(clock=clock, metrics=metrics)
        self._group: asyncio.TaskGroup | None = None
        self._queues: dict[str, deque[_Command]] = {}
        self._busy: set[str] = set()
        self._waiting: dict[str, int] = dict.fromkeys(targets.lines, 0)
        self._written_at: dict[Target, float] = {}
        metrics.gauge("commands_waiting", lambda: sum(self._waiting.values()))

    def __repr__(self) -> str:
        return f"<Commands to {self._targets!r}, {sum(self._waiting.values())} waiting>"

    # --- what others call -------------------------------------------------------------------------------------------

    def take(self, arrival: Arrival) -> None:
        """Take a command. Never waits, never raises: what is wrong with it is answered."""
        request = None
        try:
            request = parse(arrival.payload)
            command = self._accepted(arrival, request)
        except RefusalError as error:
            self.refuse(arrival, error, request)
        else:
            self._queue(command)

    def refuse(self, arrival: Arrival, error: RefusalError, request: Request | None = None) -> None:
        """Count, log and answer a command that is not even looked at."""
        self._tally.refused(f"{arrival.device}/{arrival.tag}", arrival.origin, error)
        arrival.answer(_document(request, error, None))

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A command by the control socket: `device`, `tag` and the `payload` as text. Gives the reply.

        Raises HeadgateError where the request is none.
        """
        device, tag, payload = (request.get(key) for key in ("device", "tag", "payload"))
        if not (isinstance(device, str) and isinstance(tag, str) and isinstance(payload, str)):
            raise HeadgateError("a write needs `device`, `tag` and `payload`, each a text")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def answered(document: dict[str, Any]) -> None:
            if not answer.done():
                answer.set_result(document)

        self.take(Arrival(device=device, tag=tag, payload=payload.encode(), source="control", answer=answered))
        return {"reply": await answer}

    async def run(self) -> None:
        """Carry commands out until cancelled; those that wait then are refused."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for queue in self._queues.values():
                while queue:
                    command = queue.popleft()
                    self._end(command, None, _interrupted(command))
            self._busy.clear()

    # --- taking -----------------------------------------------------------------------------------------------------

    def _accepted(self, arrival: Arrival, request: Request) -> _Command:
        """The command, if it may be carried out as far as one can tell now. Raises RefusalError."""
        if arrival.is_retained:
            raise RefusalError("retained", "a retained command is not carried out: it would come again and again")
        self._refuse_repeated(arrival, request)
        target = self._targets.find(arrival.device, arrival.tag)
        value = permitted(request, target.tag, target.kind, target.rules, is_told=target.is_told)
        now = self._clock.monotonic()
        expires_at = self._expiry(arrival, request, target, now)
        command = _Command(arrival, request, target, value, now, expires_at)
        self._check_now(command, now)
        if self._group is None:
            raise RefusalError("stopping", "not written: the gateway does not take commands now")
        if self._waiting[target.line] >= MOST_WAITING:
            raise RefusalError("busy", f"not written: {MOST_WAITING} commands wait for {target.line} already")
        if request.id is not None:
            for sender, key in _marks(arrival, request.id, request.value):
                self._ids.remember(sender, key)
        return command

    def _refuse_repeated(self, arrival: Arrival, request: Request) -> None:
        if request.id is None:
            if arrival.is_again:
                text = "sent again without an id: nobody can know whether it was carried out. Give commands an id"
                raise RefusalError("repeated", text)
        elif any(self._ids.has(*mark) for mark in _marks(arrival, request.id, request.value)):
            raise RefusalError("repeated", f"the id {show(request.id)} was there before. Each command needs its own")
        elif arrival.is_again and self._may_be_older(request):
            text = (
                "sent again, and what was done before the gateway's last crash is not known. Give commands an id and ts"
            )
            raise RefusalError("repeated", text)

    def _may_be_older(self, request: Request) -> bool:
        """Whether an earlier run may have seen a command whose id is not known."""
        now, wall_ms = self._clock.monotonic(), self._clock.wall_ms()
        if not self._ids.has_doubts(now):
            return False
        if request.made_ms is None or not self._is_clock_right() or request.made_ms > wall_ms + _AHEAD_MS:
            return True
        return request.made_ms <= wall_ms - (now - self._ids.started_at) * 1000 + _AHEAD_MS

    def _expiry(self, arrival: Arrival, request: Request, target: Target, now: float) -> float | None:
        """When the command is too old, as its payload, its tag and MQTT have it; the soonest counts."""
        ends = [] if arrival.expires_at is None else [arrival.expires_at]
        if request.made_ms is None:
            if request.expires_s is not None:
                ends.append(now + request.expires_s)
            return min(ends, default=None)
        lives_s = [s for s in (request.expires_s, target.rules.expires_s) if s is not None]
        if not lives_s:
            return min(ends, default=None)
        age_ms = self._clock.wall_ms() - request.made_ms
        if not self._is_clock_right() or age_ms < -_AHEAD_MS:
            raise RefusalError("clock", "how old the command is cannot be known: this clock and its `ts` do not agree")
        return min(*ends, now + min(lives_s) - max(0, age_ms) / 1000, math.inf)

    def _queue(self, command: _Command) -> None:
        assert self._group is not None  # noqa: S101 - else it was refused
        target, device = command.target, command.target.device.name
        self._queues.setdefault(device, deque()).append(command)
        self._waiting[target.line] += 1
        if device not in self._busy:
            self._busy.add(device)
            self._group.create_task(self._work(device), name=f"commands to {device}")

    # --- carrying out -----------------------------------------------------------------------------------------------

    async def _work(self, device: str) -> None:
        """Carry out what waits for one device, until nothing does. Where this is cut short, `run` says so to all."""
        queue = self._queues[device]
        while queue:
            value, error = None, None
            try:
                value = await self._carry_out(queue[0])
            except RefusalError as refusal:
                error = refusal
            self._end(queue.popleft(), value, error)
        self._busy.discard(device)

    def _check_now(self, command: _Command, now: float) -> Line:
        """The line to write to, if the command may be carried out at this moment. Raises RefusalError."""
        target = command.target
        if command.expires_at is not None and command.expires_at <= now:
            raise RefusalError("expired", f"not written: it expired {now - command.expires_at:.3f} s ago")
        if command.came_at + PATIENCE_S <= now:
            raise RefusalError("busy", f"not written: its turn did not come within {PATIENCE_S:.0f} s")
        state = self._states.get(target.owner) or self._states.get(target.device.name)
        if state is not None and not state.online:
            raise RefusalError("offline", f"not written: device '{target.owner}' is offline ({state.cause})")
        line = self._lines(target.line)
        if line is None:
            raise RefusalError("offline", f"not written: {target.line} is not connected")
        wait_s = self._written_at.get(target, now - target.rules.every_s) + target.rules.every_s - now
        if wait_s > 0:
            raise RefusalError("rate", f"not written: the next write may come in {wait_s:.3f} s")
        return line

    async def _carry_out(self, command: _Command) -> Value:
        """Write, and read back; gives the value that the tag has now. Raises RefusalError."""
        target = command.target
        line = self._check_now(command, self._clock.monotonic())
        try:
            raw = unscale(target.tag, command.value)
        except ValueError as error:
            raise RefusalError("range", f"not written: {error}") from None
        if self._audit is not None:
            command.intent = self._audit.intent(_facts(command))
            await self._audit.kept(command.intent, command.came_at + PATIENCE_S - self._clock.monotonic())
            line = self._check_now(command, self._clock.monotonic())
        try:
            async with asyncio.timeout(command.give_up_at - self._clock.monotonic()):
                return await self._write(line, command, raw)
        except TimeoutError:
            if command.is_acknowledged:
                raise RefusalError("read_back", "written, but it was not read back in time") from None
            text = f"no answer within {DEADLINE_S:.0f} s: it may have been done or not"
            raise RefusalError("timeout", text) from None

    async def _write(self, line: Line, command: _Command, raw: Value) -> Value:
        target = command.target
        try:
            with line.borrow() as driver:
                if not isinstance(driver, Writes):
                    raise RefusalError("not_writable", f"driver {target.device.driver} cannot write")
                await self._send(driver, command, raw)
                command.is_acknowledged = True
                line.hurry(target.owner, target.tag.name)
                return await self._read_back(line, driver, target, raw) if target.rules.read_back else command.value
        except LineError as error:  # of `borrow`: what is sent says by itself how it failed
            raise RefusalError("offline", f"not written: {error}") from None

    async def _send(self, driver: Writes, command: _Command, raw: Value) -> None:
        target = command.target
        command.is_sent = True
        try:
            await driver.write(target.device, target.tag, raw, is_wanted=lambda: self._is_wanted(command))
        except ExpiredError:
            command.is_sent = False
            raise RefusalError("expired", "not written: it expired while it waited for the line") from None
        except ValueError as error:
            command.is_sent = False
            raise RefusalError("range", f"not written: {error}") from None
        except TagError as error:
            raise RefusalError("refused", f"the device refuses it: {error}") from None
        except (DeviceError, LineError) as error:
            raise RefusalError("failed", f"it may have been done or not: {error}") from None
        finally:
            if command.is_sent and target.rules.every_s:
                self._written_at[target] = self._clock.monotonic()

    def _is_wanted(self, command: _Command) -> bool:
        return command.expires_at is None or self._clock.monotonic() < command.expires_at

    async def _read_back(self, line: Line, driver: Writes, target: Target, raw: Value) -> Value:
        try:
            found = await driver.read_tag(target.device, target.tag)
        except (TagError, DeviceError, LineError) as error:
            raise RefusalError("read_back", f"written, but it cannot be read back: {error}") from None
        line.show(target.owner, target.tag.name, found)
        value, _ = target.scaled(found)
        meant = driver.as_read(target.device, target.tag, raw) if isinstance(driver, Mirrors) else raw
        if not holds(found, meant, target.tag.type or target.kind):
            written = target.scaled(meant)[0]
            text = f"written {show(written)}, but the tag reads {show(value)}"
            raise RefusalError("read_back", text, {"value": value, "written": written})
        return value

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end(self, command: _Command, value: Value, error: RefusalError | None) -> None:
        """Note the outcome, count it, and answer."""
        arrival, request, target = command.arrival, command.request, command.target
        self._waiting[target.line] -= 1
        document = _document(request, error, value)
        if not command.is_sent and request.id is not None:
            for sender, key in _marks(arrival, request.id, request.value):
                self._ids.forget(sender, key)
        if command.intent is not None and self._audit is not None:
            result = {"found" if key == "value" else key: value for key, value in document.items()}
            self._audit.outcome(command.intent, _facts(command) | result)
        if error is not None:
            self._tally.refused(str(target), arrival.origin, error)
        else:
            took_s = self._clock.monotonic() - command.came_at
            self._tally.done(str(target), arrival.origin, show(value), took_s)
        arrival.answer(document)


def _marks(arrival: Arrival, id: str | int, value: Any) -> Iterator[tuple[Sender, Key]]:  # noqa: A002 - its own word
    """By what a command is known again: its id and its sender, and if the id is long, that with all that it says.

    On the broker ids of users are told apart, and of clients where nobody says who they are.
    """
    who = arrival.who
    yield (arrival.source, who.get("user") or who.get("client", "")), id
    if isinstance(id, str) and len(id) >= _UNIQUE:
        yield ("", ""), (id, arrival.device, arrival.tag, value)


def _interrupted(command: _Command) -> RefusalError:
    if command.is_sent:
        return RefusalError("failed", "the gateway stops: it may have been done or not")
    return RefusalError("stopping", "not written: the gateway stops")


def _document(request: Request | None, error: RefusalError | None, value: Value) -> dict[str, Any]:
    """The reply: `{"id":…,"ok":true,"value":…}`, or `{"id":…,"ok":false,"code":…,"error":…}`."""
    named = {} if request is None or request.id is None else {"id": request.id}
    if error is None:
        return {**named, "ok": True, "value": value}
    return {**named, "ok": False, "code": error.code, "error": str(error), **error.details}


def _facts(command: _Command) -> dict[str, Any]:
    """What the audit says of a command."""
    arrival, target = command.arrival, command.target
    named = {} if command.request.id is None else {"id": command.request.id}
    known = {"source": arrival.source, **arrival.who, "device": target.owner, "tag": target.tag.name}
    return {**known, "value": command.value, **named}
