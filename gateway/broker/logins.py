"""From the first packet to CONNACK: who is asked, how many at a time, and how late a refusal is said."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from gateway.broker.access import Access, Refusal
from gateway.broker.client import Identity
from gateway.broker.limits import Failures
from gateway.broker.report import Report
from gateway.metrics import Metrics
from gateway.mqtt.packets import Connect, Packet
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.link import Link
    from gateway.broker.turn import Turn

_AT_ONCE = 64
"""Logins under way at a time; the others wait for their turn, until their time is over."""

_GUESSES = frozenset({Reason.BAD_USER_NAME_OR_PASSWORD, Reason.NOT_AUTHORIZED, Reason.BANNED})
"""Refusals by which one learns that a guess was wrong: they are slowed down."""


@dataclass(slots=True, eq=False)
class Opening:
    """What a connection needs until it is accepted, and no longer. `deadline`: when that must have happened.

    `refusal`: there is no room for this client; it is only waited for to be told so.
    """

    deadline: float
    refusal: Refusal | None = None
    connect: Connect = field(default_factory=Connect)
    has_come: bool = False


class Logins:
    """Takes a connection's packets until it is accepted or refused."""

    def __init__(self, turn: Turn, *, access: Access, report: Report, metrics: Metrics) -> None:
        self._turn = turn
        self._access = access
        self._report = report
        self._refused = metrics.counter("broker_logins_refused_total")
        self._timed_out = metrics.counter("broker_connect_timeouts_total")
        self._failures = Failures()
        self._waiting: deque[Link] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Link, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<Logins: {len(self._tasks)} under way, {len(self._waiting)} waiting, {len(self._timers)} refused>"

    def handle(self, link: Link, packet: Packet, now: float) -> None:
        """Take a packet of a client that is not accepted yet. `link.opening` is there."""
        opening = link.opening
        if opening is None:
            return
        if isinstance(packet, Connect):
            opening.has_come = True
            opening.connect = packet
            link.identity = Identity(packet.client_id, packet.username, link.address)
            self._begin(link, opening, now)
        else:  # a method of authentication is at work, which is the broker's business
            self._turn.broker.handle(link, packet, now)
            self._proceed(link, now)

    def late(self, link: Link) -> None:
        """The time for being accepted is over."""
        opening = link.opening
        if opening is None:
            return
        self._timed_out.value += 1
        if opening.has_come:
            self._refuse(link, Refusal(Reason.SERVER_BUSY, "the login took too long"))
        else:
            reason = "no CONNECT in time"
            self._report.say("connect_timeout", client_id="", address=link.address, reason=reason)
            link.abort()

    def tick(self, now: float) -> None:
        """Forget failures of long ago."""
        self._failures.tick(now)

    async def close(self) -> None:
        """Stop what is under way."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, link: Link, opening: Opening, now: float) -> None:
        if opening.refusal is not None:
            self._refuse(link, opening.refusal)
        elif self._failures.is_blocked(link.address):
            self._refuse(link, Refusal(Reason.SERVER_BUSY, "too many failed logins from this address"))
        elif opening.connect.properties.authentication_method is None:
            self._waiting.append(link)
            self._start()
        else:
            self._turn.broker.connect(link, opening.connect, now)
            self._proceed(link, now)

    def _proceed(self, link: Link, now: float) -> None:
        """See what a step has led to."""
        if link.connection.is_connected:
            link.welcomed(now)
        elif link.is_finished and link.opening is not None:
            method = link.opening.connect.properties.authentication_method
            self._note_refusal(link, f"not authenticated by the method {method!r}")

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < _AT_ONCE:
            link = self._waiting.popleft()
            if link.opening is None or link.is_finished or link.transport is None:
                continue
            task = self._turn.loop.create_task(self._login(link, link.opening), name="login")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    async def _login(self, link: Link, opening: Opening) -> None:
        is_well = False
        try:
            try:
                async with asyncio.timeout(self._turn.limits.connect_timeout_s):
                    answer = await self._access.login(opening.connect, link.other_end())
            except TimeoutError:
                answer = Refusal(Reason.SERVER_BUSY, "the login took too long")
            now = self._turn.now()
            if link.opening is None or link.is_finished or link.transport is None:
                pass  # it has gone, or its time was over
            elif isinstance(answer, Refusal):
                self._refuse(link, answer)
            else:
                self._accept(link, opening, answer, now)
            is_well = True
        finally:
            if not is_well:
                link.abort()

    def _accept(self, link: Link, opening: Opening, identity: Identity, now: float) -> None:
        link.identity = identity
        self._turn.broker.connect(link, opening.connect, now)
        if link.connection.is_connected:
            link.welcomed(now)

    def _note_refusal(self, link: Link, cause: str) -> None:
        self._refused.value += 1
        self._report.say("login_refused", client_id=link.identity.client_id, address=link.address, reason=cause)

    def _refuse(self, link: Link, refusal: Refusal) -> None:
        """Say no: at once, or late where somebody may be guessing."""
        self._note_refusal(link, f"{refusal.reason.name.lower()}: {refusal.cause or refusal.text}")
        if refusal.reason not in _GUESSES:
            self._turn.broker.refuse(link, refusal.reason, refusal.text)
            return
        if link.opening is not None:
            link.opening.deadline = inf
        delay_s = self._failures.failed(link.address, self._turn.now())
        self._timers[link] = self._turn.loop.call_later(delay_s, self._tell, link, refusal)

    def _tell(self, link: Link, refusal: Refusal) -> None:
        del self._timers[link]
        self._failures.told(link.address)
        if link.transport is not None and not link.is_finished:
            self._turn.broker.refuse(link, refusal.reason, refusal.text)
