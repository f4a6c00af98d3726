"""An uplink: connects, delivers, connects again, for as long as it runs; what the rest of the gateway knows of it.

Log: one line when it connects, one when the connection is lost, one for each new reason why it cannot be had. A reason
that needs a person is an error. Attempts that only repeat are counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import random
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model import Batch, DeviceState
from gateway.mqtt.properties import Place, Properties, encode_properties
from gateway.spool.cursor import Cursor
from gateway.uplinks.delivery import Counters, Delivers, Delivery, Link
from gateway.uplinks.dialling import Attempt, Dialling
from gateway.uplinks.encoding import Encoding
from gateway.uplinks.lane import Source, Stream
from gateway.uplinks.message import Incoming, Message, UserProperties
from gateway.uplinks.notices import Notices
from gateway.uplinks.options import Options, parse_server
from gateway.uplinks.payload_json import JsonPayload
from gateway.uplinks.payload_value import ValuePayload
from gateway.uplinks.refusals import Refusals
from gateway.uplinks.replay import ReplayStatus
from gateway.uplinks.session import Session, SessionError, Terms
from gateway.uplinks.suspect import Suspect
from gateway.uplinks.topics import Template
from gateway.uplinks.traffic import Traffic

log = logging.getLogger("headgate.uplinks")

_LAST_WORD_S = 0.5
_MOST_REASONS = 64
_MOST_UNANSWERED = 3
_SUBSCRIBE_AGAIN_S = 3600.0


class Inbox(Protocol):
    """Who takes commands; `commands.mqtt.Inbox` is one."""

    @property
    def filters(self) -> Sequence[str]:
        """What to subscribe to."""

    def take(
        self,
        incoming: Incoming,
        publish: Callable[[Message, bytes | None], None],
        *,
        source: str,
        who: Mapping[str, str],
    ) -> None:
        """One message; `publish` sends its reply, with the correlation data of MQTT 5. Never waits, never raises."""


class Connection(Link, Protocol):
    """A link that is entered and left; `Session` is one."""

    async def __aenter__(self) -> Self:
        """Connect. Raises SessionError."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye, or without a word after an exception."""

    def subscribe(
        self, filters: Sequence[str], on_message: Callable[[Incoming], None], on_answer: Callable[[], None]
    ) -> None:
        """Call `on_message` with what comes on these topics, and `on_answer` once, when the server has answered.

        Raises SessionError when the connection is gone.
        """

    async def lost(self) -> NoReturn:
        """Wait until the connection is gone. Raises SessionError then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkStatus:
    """How an uplink fares. `server` and `version` are empty while it is not connected; `since` is wall time in ms.

    `published` and `refused` count publishes, `acknowledged` records, `skipped` records and values given up.
    `backlog_records`: about how many wait from before the connection was made, or all that wait while there is none;
    `replay_rate`: values of them a second lately; `done_at`: when they will be through, wall time in ms, None where
    that is not known. `replay`: the latest replay that somebody asked for.
    """

    name: str
    connected: bool
    server: str
    version: str
    since: int
    published: int
    acknowledged: int
    refused: int
    skipped: int
    in_flight: int
    last_error: str
    backlog_records: int
    replay_rate: float
    done_at: int | None
    replay: ReplayStatus | None


class Forwarder:
    """Feeds one uplink from the spool's queues.

    `streams` are the queues, the most important first, each with this uplink's cursor. `states` are the devices' states
    by name, published anew after each connect. `latest` gives a dense batch of last values for each group
    (`Image.batches`): they go out before records where they stand retained, and where a backlog would keep who listens
    waiting for what is true now. `inbox`: who takes commands, where this uplink may send any. Raises ValueError where a
    template is none.
    """

    def __init__(
        self,
        options: Options,
        *,
        streams: Sequence[tuple[Source, Cursor]],
        states: Mapping[str, DeviceState],
        clock: Clock,
        metrics: Metrics,
        latest: Callable[[], Iterable[Batch]] | None = None,
        inbox: Inbox | None = None,
        connect: Callable[[Attempt, Options, Message], Connection] = Session,
        dice: Callable[[], float] = random,
    ) -> None:
        self._options = options
        self._states = states
        self._clock = clock
        self._latest = latest
        self._inbox = inbox
        self._unanswered = 0  # connections in a row that ended before the server had answered a SUBSCRIBE
        self._subscribe_at = 0.0
        self._stands_retained = options.payload == "value" and options.retain
        self._connect = connect
        servers = [parse_server(url) for url in options.servers]
        self._dialling = Dialling(servers, options.version, will_qos=min(1, options.qos))
        self._refused = metrics.counter("uplink_refused_publishes_total", uplink=options.name)
        self._skipped = metrics.counter("uplink_skipped_total", uplink=options.name)
        self._lost_replies = metrics.counter("uplink_lost_replies_total", uplink=options.name)
        self._refusals = Refusals(options.name, refused=self._refused, skipped=self._skipped)
        lanes = [Stream(source, cursor) for source, cursor in streams]
        self._traffic = Traffic(options, lanes, self._refusals, dice=dice)
        self._suspect = Suspect()
        self._prefix = Template(options.prefix, {"gateway": options.gateway}).fill({})
        self._notices = Notices(self._prefix)
        self._uplink = self._delivers(options, metrics)
        self._delivery: Delivery | None = None
        self._terms: Terms | None = None
        self._since = clock.wall_ms()
        self._since_monotonic = clock.monotonic()
        self._last_error = ""
        self._reasons: set[str] = set()
        self._attempts = 0
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._deadline = 0.0
        metrics.gauge("uplink_connected", lambda: float(self._terms is not None), uplink=options.name)
        if options.tls is not None and not options.tls.verify:
            log.error("uplink '%s': verify is off: whoever answers is trusted with data and password", options.name)

    def __repr__(self) -> str:
        return f"<Forwarder '{self._options.name}' {self._terms.server if self._terms else 'not connected'}>"

    def _delivers(self, options: Options, metrics: Metrics) -> Delivers:
        name = options.name
        topic = Template(options.topic, {"gateway": options.gateway, "prefix": self._prefix})
        payload = JsonPayload if options.payload == "json" else ValuePayload
        return Delivers(
            encoding=Encoding(
                payload=payload(topic, retain=bool(options.retain), skipped=self._refusals.skip),
                notices=self._notices,
                properties=UserProperties(options.gateway),
                refusals=self._refusals,
                suspect=self._suspect,
            ),
            refusals=self._refusals,
            suspect=self._suspect,
            counters=Counters(
                published=metrics.counter("uplink_publishes_total", uplink=name),
                acknowledged=metrics.counter("uplink_acknowledged_records_total", uplink=name),
                connects=metrics.counter("uplink_connects_total", uplink=name),
            ),
            qos=options.qos,
            max_in_flight=options.max_in_flight,
            ack_timeout_s=options.ack_timeout_s,
            on_progress=self._traffic.on_progress,
            on_over=self._traffic.on_over,
        )

    # --- what others call -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect and deliver until stopped. Raises only what is a bug."""
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                wait_s = await self._connected_once()
                await _first(asyncio.sleep(wait_s), self._stopping.wait())
        finally:
            self._ended.set()

    async def stop(self, timeout_s: float) -> None:
        """Send what is new, wait for acknowledgements at most that long, say `stopped`, and let `run` return.

        What is not acknowledged by then stays in the spool. Takes at most a second longer than `timeout_s`.
        """
        self._deadline = self._clock.monotonic() + timeout_s
        self._stopping.set()
        await self._ended.wait()

    def device_changed(self, state: DeviceState) -> None:
        """Publish a device's state, where there is a connection; the next one will say it anyway."""
        if self._delivery is not None:
            self._delivery.announce([self._notices.device(state)])

    def replay(self, first_ms: int, last_ms: int) -> None:
        """Send once more, marked and at the backlog's pace, what the spool has of that time (wall ms, both included).

        It goes on over lost connections, but not over a restart. Raises HeadgateError where one is under way.
        """
        self._traffic.replay(first_ms, last_ms)

    def stop_replay(self) -> None:
        """Send no more of what was asked for once more. Nothing happens where nothing was."""
        self._traffic.stop_replay("it was stopped")

    def status(self) -> UplinkStatus:
        """How it fares now."""
        terms, counters, outlook = self._terms, self._uplink.counters, self._traffic.outlook()
        left_s = outlook.left_s if outlook.records else None
        return UplinkStatus(
            name=self._options.name,
            connected=terms is not None,
            server=terms.server if terms else "",
            version=terms.version if terms else "",
            since=self._since,
            published=counters.published.value,
            acknowledged=counters.acknowledged.value,
            refused=self._refused.value,
            skipped=self._skipped.value,
            in_flight=self._delivery.window.in_flight if self._delivery else 0,
            last_error=self._last_error,
            backlog_records=outlook.records,
            replay_rate=outlook.rate,
            done_at=None if left_s is None else self._clock.wall_ms() + round(left_s * 1000),
            replay=self._traffic.replay_status(),
        )

    # --- one connection ---------------------------------------------------------------------------------------------

    async def _connected_once(self) -> float:
        """Try to connect, and stay as long as it lasts; seconds to wait before the next attempt."""
        attempt = self._dialling.attempt
        self._attempts += 1
        try:
            async with AsyncExitStack() as stack:
                connection = self._connect(attempt, self._options, self._notices.offline())
                await _first(stack.enter_async_context(connection), self._stopping.wait())
                if not self._stopping.is_set():
                    await self._serve(connection)
        except SessionError as error:
            return self._failed(attempt, error) if self._terms is None else self._lost(self._terms, error)
        finally:
            self._changed(None)
        return 0.0

    async def _serve(self, connection: Connection) -> None:
        self._arrived(connection.terms)
        notices, traffic = self._notices, self._traffic
        delivery = self._delivery = Delivery(connection, self._uplink)
        is_overtaken = traffic.begin(delivery)
        try:
            delivery.announce([notices.online(), *map(notices.device, self._states.values())])
            self._subscribe(connection)
            if self._latest is not None and (is_overtaken or self._stands_retained):
                delivery.refresh(self._latest())
            await _first(delivery.run(), delivery.watch(), traffic.watch(), connection.lost(), self._stopping.wait())
            traffic.quiet()
            left_s = max(0.0, self._deadline - self._clock.monotonic())
            await _first(delivery.run(until_empty=True), connection.lost(), asyncio.sleep(left_s))
            delivery.announce([notices.stopped()])
            await _first(delivery.settled(), connection.lost(), asyncio.sleep(_LAST_WORD_S))
        except SessionError as error:
            self._look_for_suspect(delivery, error)
            raise
        finally:
            self._delivery = None
            traffic.end()
            delivery.close()

    def _subscribe(self, connection: Connection) -> None:
        """Ask for commands. Servers that hang up instead of saying no must not cost us the connection for ever."""
        now = self._clock.monotonic()
        if self._inbox is None or not self._inbox.filters or now < self._subscribe_at:
            return
        if self._unanswered >= _MOST_UNANSWERED:
            self._unanswered, self._subscribe_at = 0, now + _SUBSCRIBE_AGAIN_S
            log.error(
                "uplink '%s': the connection breaks whenever it subscribes to commands: none come by it for an hour."
                " Look at what the server permits, or write commands: false",
                self._options.name,
            )
            return
        self._unanswered += 1
        connection.subscribe(self._inbox.filters, self._on_incoming, self._on_subscribed)

    def _on_subscribed(self) -> None:
        self._unanswered = 0

    def _on_incoming(self, incoming: Incoming) -> None:
        if self._inbox is not None:
            self._inbox.take(incoming, self._reply, source=f"uplink {self._options.name}", who={})

    def _reply(self, message: Message, data: bytes | None) -> None:
        """Answer a command, on whatever connection there is now."""
        own = b"" if data is None else encode_properties(Properties(correlation_data=data), Place.PUBLISH)
        if self._delivery is None or not self._delivery.reply(message, own):
            self._lost_replies.value += 1

    def _look_for_suspect(self, delivery: Delivery, error: SessionError) -> None:
        travellers = list(delivery.window.travellers())
        if not travellers:
            return
        entry, suspect = travellers[0], self._suspect
        if entry.lane.kind == "again":
            self._traffic.blame(entry.key)
            return
        company = (other.key for other in travellers if other.lane.kind != "again")
        suspect.lost(entry.key, company, entry.size, error.code)
        if suspect.is_notable:
            log.error(
                "uplink '%s': the connection breaks whenever record %d (%d bytes) is sent. It goes alone from now on,"
                " in smaller parts if need be; look at the server's limits and permissions",
                self._options.name,
                entry.seq,
                entry.size,
            )

    # --- changes of state -------------------------------------------------------------------------------------------

    def _changed(self, terms: Terms | None) -> None:
        if terms is not self._terms:
            self._terms = terms
            self._since = self._clock.wall_ms()
            self._since_monotonic = self._clock.monotonic()

    def _arrived(self, terms: Terms) -> None:
        name, options = self._options.name, self._options
        self._changed(terms)
        self._uplink.counters.connects.value += 1
        tries = f", at attempt {self._attempts}" if self._attempts > 1 else ""
        log.info(
            "uplink '%s': connected to %s as '%s', MQTT %s%s", name, terms.server, terms.client_id, terms.version, tries
        )
        if terms.maximum_qos < options.qos:
            log.warning("uplink '%s': the server takes no more than QoS %d", name, terms.maximum_qos)
        if not terms.can_retain:
            log.warning("uplink '%s': the server retains nothing: status and last values reach only who listens", name)
        self._reasons.clear()
        self._attempts = 0

    def _lost(self, terms: Terms, error: SessionError) -> float:
        self._last_error = str(error)
        level = logging.ERROR if error.needs_person else logging.WARNING
        log.log(level, "uplink '%s': lost %s: %s", self._options.name, terms.server, error)
        return self._dialling.lost(self._clock.monotonic() - self._since_monotonic)

    def _failed(self, attempt: Attempt, error: SessionError) -> float:
        text = self._last_error = f"{attempt.server}: {error}"
        wait_s = self._dialling.failed(error.code, hung_up=error.hung_up)
        then = self._dialling.attempt
        if error.code and then.server == attempt.server and then != attempt:
            log.info("uplink '%s': %s; asking for less, MQTT %s", self._options.name, text, then.version)
        elif text not in self._reasons and len(self._reasons) < _MOST_REASONS:
            self._reasons.add(text)
            self._complain(text, error)
        return wait_s

    def _complain(self, text: str, error: SessionError) -> None:
        if not error.needs_person:
            log.warning("uplink '%s': cannot connect to %s. Trying on", self._options.name, text)
            return
        is_late = "certificate" in text and self._clock.state() == "unsynced"
        clock = " (this machine's clock is not synchronised)" if is_late else ""
        log.error("uplink '%s': cannot connect to %s%s. A person must act; trying on", self._options.name, text, clock)


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Run all until the first ends, then cancel the others. Raises what ended it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
