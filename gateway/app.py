"""The one place where parts meet: it starts and stops one device line or uplink by name, and all of them in order.

Start: store, control socket, broker, uplinks, lines, ready. Stop: commands, lines (no new samples), uplinks (send what
is new, say stopped), broker, control socket, store (what is not acknowledged goes to the disk). A part that fails is
contained; the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gateway import __version__
from gateway.acquisition.line import Line
from gateway.acquisition.roster import DeviceHealth
from gateway.clock import Clock, SystemClock
from gateway.commands.audit import Audit
from gateway.commands.ids import Ids
from gateway.commands.keeping import Keeping
from gateway.commands.mqtt import Inbox
from gateway.commands.taking import Commands
from gateway.commands.targets import Targets
from gateway.config import Config
from gateway.control import Control, Handler
from gateway.driver import Driver, LineKey, find
from gateway.errors import HeadgateError, RefusedError
from gateway.image import Image
from gateway.lessons import Lessons
from gateway.metrics import Metrics
from gateway.model import Batch, Device, DeviceState
from gateway.settings.broker import Broker
from gateway.spool.record import Record
from gateway.spool.spool import Spool
from gateway.supervisor import Supervisor, contained
from gateway.systemd import Notifier
from gateway.tools import Tools
from gateway.upkeep.handlers import Upkeep
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.payload_json import plain
from gateway.uplinks.tap import Tap

if TYPE_CHECKING:
    from gateway.broker.embedded import Embedded

log = logging.getLogger("headgate.app")

_LINE_STOP_S = 1.0
_DRAIN_S = 1.5
_CLOSE_S = 1.5
"""An ordered stop takes less than 5 s even when every part uses up its time."""

_WRITER_STUCK_S = 60.0
"""A card may stall for half a minute; a write that takes longer will not come back."""

_STATUS_EVERY_S = 5.0

_OTHER_FILES = 100
"""Open files beside the broker's connections: devices, uplinks, segments."""


class App:
    """One running gateway: entered = started, left = stopped in order. Raises RefusedError where it cannot start."""

    def __init__(self, config: Config, *, clock: Clock | None = None, notifier: Notifier | None = None) -> None:
        self.clock = clock or SystemClock()
        self.image = Image()
        self.metrics = Metrics()
        self.supervisor = Supervisor(clock=self.clock, metrics=self.metrics)
        self._config = config
        self._notifier = notifier or Notifier({})
        self._stack = AsyncExitStack()
        self.broker: Embedded | None = None
        self._tap: Tap | None = None
        self._inbox: Inbox | None = None
        self._forwarders: dict[str, Forwarder] = {}
        self._lines: dict[str, Line] = {}
        self._targets = Targets(config.lines, config.groups, config.prefix)
        self._groups = 0
        self._started = self.clock.monotonic()

    def __repr__(self) -> str:
        return f"<App {self._config.gateway}: {len(self._lines)} lines, {len(self._forwarders)} uplinks>"

    async def __aenter__(self) -> Self:
        file = self._config
        path = file.spool.path
        writing = ThreadPoolExecutor(1, "headgate-write")
        self._stack.callback(writing.shutdown, wait=False)
        classes = {group.record_class for groups in file.groups.values() for group in groups}
        self.spool = await Spool.open(
            path,
            file.spool.limits_of(classes),
            classes=classes,
            clock=self.clock,
            metrics=self.metrics,
            writing=writing,
            clock_wait_s=file.spool.clock_wait_s,
        )
        self._stack.push_async_callback(contained, "spool", self._close_spool)
        self._lessons = await self._stack.enter_async_context(Lessons(path, writing=writing, metrics=self.metrics))
        self.supervisor.start("lessons", self._lessons.run)
        self._stack.push_async_callback(self.supervisor.stop, "lessons", timeout_s=_LINE_STOP_S)
        await self._take_commands(writing)
        await self._open_control()
        if file.broker is not None:
            await self._start_broker(file.broker, writing)
        for name in file.uplinks:
            self.start_uplink(name)
        for key, devices in file.lines.items():
            self.start_line(key, devices)
        self._name_strangers()
        self.supervisor.start("watch", self._watch)
        counts = f"{len(file.devices)} device(s), {len(file.uplinks)} uplink(s)"
        log.info("headgate %s runs '%s': %s, spool %s", __version__, file.gateway, counts, path)
        self._notifier.ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notifier.stopping()
        log.info("stopping")
        await self.supervisor.stop("watch", timeout_s=_LINE_STOP_S)
        await self.supervisor.stop("commands", timeout_s=_LINE_STOP_S)
        await asyncio.gather(*(self.stop_line(port) for port in list(self._lines)))
        await asyncio.gather(*(self.stop_uplink(name) for name in list(self._forwarders)))
        await self._stack.aclose()
        log.info("stopped")

    # --- parts by name ---

    def start_line(self, key: LineKey, devices: Sequence[Device]) -> None:
        """Poll the devices of one line from now on."""
        file = self._config
        line = Line(
            key.port,
            find(devices[0].driver),
            [(device, file.groups[device.name]) for device in devices],
            sink=self._sink,
            image=self.image,
            on_state=self._on_state,
            on_groups=self._targets.learn,
            clock=self.clock,
            metrics=self.metrics,
            number=self._groups,
            memory=self._lessons,
            room=self.spool.room,
        )
        self._groups += sum(len(file.groups[device.name]) for device in devices)
        self._lines[key.port] = line
        self.supervisor.start(f"line {key.port}", line.run)

    async def stop_line(self, port: str) -> None:
        """Stop polling the devices of one line."""
        del self._lines[port]
        await self.supervisor.stop(f"line {port}", timeout_s=_LINE_STOP_S)

    def start_uplink(self, name: str) -> None:
        """Forward to one uplink from now on, from where it was left."""
        options = self._config.uplinks[name]
        queues = self.spool.queues.values()
        forwarder = Forwarder(
            options,
            streams=[(queue, queue.cursor(name, holds=bool(options.holds))) for queue in queues],
            states=self.image.states,
            latest=self.image.batches,
            inbox=self._inbox if options.commands else None,
            clock=self.clock,
            metrics=self.metrics,
        )
        self._forwarders[name] = forwarder
        self.supervisor.start(f"uplink {name}", forwarder.run)

    async def stop_uplink(self, name: str) -> None:
        """Send what is new for a moment, say stopped, disconnect."""
        forwarder = self._forwarders.pop(name)
        await contained(f"uplink {name}", lambda: forwarder.stop(_DRAIN_S))
        await self.supervisor.stop(f"uplink {name}", timeout_s=_LINE_STOP_S)

    async def _start_broker(self, asked: Broker, writing: Executor) -> None:
        """The embedded broker, and the tap that makes the devices live there."""
        from gateway.broker.access import AccessError  # noqa: PLC0415 - a file without a broker does not pay for one
        from gateway.broker.embedded import Embedded  # noqa: PLC0415 - likewise

        folder = self._config.spool.path / "broker"
        try:
            broker = Embedded(asked.options, folder=folder, writing=writing, clock=self.clock, metrics=self.metrics)
        except AccessError as error:
            raise RefusedError(f"broker: {error}") from error
        _allow_files(asked.options.limits.connections)
        self.broker = await self._stack.enter_async_context(broker)
        self._tap = Tap(
            asked.forms,
            gateway=self._config.gateway,
            prefix=self._config.prefix,
            door=self.broker.door(self._config.gateway),
            packet_bytes=asked.options.limits.packet_bytes,
            metrics=self.metrics,
        )
        self._tap.online()
        if self._inbox is not None:
            self._inbox.listen_at(self.broker.door(self._config.gateway))
        self._stack.callback(self._tap.stopped)
        self.supervisor.start("broker listeners", self.broker.run)
        self._stack.push_async_callback(self.supervisor.stop, "broker listeners", timeout_s=_LINE_STOP_S)

    async def reload(self) -> None:
        """Read anew what may change while the gateway runs: users, ACL and certificates of the broker."""
        if self.broker is None:
            log.info("there is no broker: nothing is read anew")
        else:
            await contained("reload", self.broker.reload)

    async def _take_commands(self, writing: Executor) -> None:
        """Carry out writes to tags from now on, wherever they come from."""
        file = self._config
        targets = self._targets
        ids = Ids()
        if targets.lines:
            keeping = Keeping(file.spool.path, writing=writing, clock=self.clock)
            ids = (await self._stack.enter_async_context(keeping)).ids
            self.supervisor.start("ids of commands", keeping.run)
            self._stack.push_async_callback(self.supervisor.stop, "ids of commands", timeout_s=_LINE_STOP_S)
        self.commands = Commands(
            targets,
            lines=self._lines.get,
            states=self.image.states,
            audit=Audit(self.spool, self._tell, is_strict=file.commands.is_strict),
            ids=ids,
            is_clock_right=lambda: self.spool.clock_worth != "unsynced",
            clock=self.clock,
            metrics=self.metrics,
        )
        self._inbox = Inbox(
            self.commands,
            targets,
            prefix=file.prefix,
            gateway=file.gateway,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.supervisor.start("commands", self.commands.run)

    def _tell(self, record: Record) -> None:
        if self._tap is not None:
            self._tap.note(record)

    def _sink(self, batch: Batch) -> None:
        queue = self.spool.queue_of(batch.group)
        seq = queue.append(batch)
        if self._tap is not None:
            self._tap.batch(batch, seq, queue.epoch)

    def _on_state(self, state: DeviceState) -> None:
        if self._tap is not None:
            self._tap.device_changed(state)
        for forwarder in self._forwarders.values():
            forwarder.device_changed(state)

    # --- store and control ---

    async def _close_spool(self) -> None:
        try:
            await asyncio.wait_for(self.spool.close(), _CLOSE_S)
        except TimeoutError:
            log.error("the spool could not be closed within %.1f s: the disk does not answer", _CLOSE_S)  # noqa: TRY400 - no trace helps

    async def _open_control(self) -> None:
        """Without its socket the gateway still does its work: only the commands that ask it do not."""
        queues = self.spool.queues
        upkeep = Upkeep(queues.values, self._forwarders, clock=self.clock, metrics=self.metrics)
        handlers: dict[str, Handler] = {"status": self._say_status, "read": self._say_samples, **upkeep.handlers}
        handlers["write"] = self.commands.ask
        handlers |= Tools(self._borrow).handlers
        control = Control(self._config.spool.path, handlers)
        try:
            await self._stack.enter_async_context(control)
        except RefusedError as error:
            log.warning("no control socket: %s", error)

    def _name_strangers(self) -> None:
        """An uplink that was taken out of the file, or renamed, keeps what it had; a person must know."""
        self.spool.retire()
        for cursor in self.spool.status().cursors:
            if cursor.name not in self._forwarders and cursor.holds:
                log.warning(
                    "the spool keeps %d records for uplink '%s', and nothing new: the file has no such uplink. Was it"
                    " renamed? Give it its name back, or let go of them with `headgate queue forget`",
                    cursor.lag_records,
                    cursor.name,
                )

    def _borrow(self, device: str) -> AbstractContextManager[Driver]:
        """The driver of a device's line, for a tool. Raises HeadgateError."""
        for key, devices in self._config.lines.items():
            if any(device in (whole.name, *(part.name for part in whole.parts)) for whole in devices):
                return self._lines[key.port].borrow()
        raise HeadgateError(f"there is no device '{device}'; there are: {', '.join(self._config.groups)}")

    def _say_samples(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        device = request.get("device")
        if device is not None and device not in list(self._config.groups):
            raise HeadgateError(f"there is no device '{device}'; there are: {', '.join(self._config.groups)}")
        return {"samples": [{**asdict(s), "value": plain(s.value, s.quality)[0]} for s in self.image.samples(device)]}

    def _say_status(self, _request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "gateway": self._config.gateway,
            "version": __version__,
            "up_s": self.clock.monotonic() - self._started,
            "clock": self.spool.clock_worth,
            "devices": self._devices_status(),
            "lines": [asdict(line.status()) for line in self._lines.values()],
            "uplinks": [asdict(forwarder.status()) for forwarder in self._forwarders.values()],
            "broker": None if self.broker is None else self.broker.status(),
            "spool": asdict(self.spool.status()),
            "tasks": [
                {"name": h.name, "state": h.state, "crashes": h.crashes, "last_error": h.last_error}
                for h in self.supervisor.health.values()
            ],
            "metrics": [{"name": name, "labels": labels, "value": value} for name, labels, value in self.metrics],
        }

    def _devices_status(self) -> list[dict[str, Any]]:
        health = {found.device: found for line in self._lines.values() for found in line.health()}
        return [
            self._device_status(device, health.get(device.part_of or device.name)) for device in self._config.devices
        ]

    def _device_status(self, device: Device, health: DeviceHealth | None) -> dict[str, Any]:
        """What the world was told of the device, and what its line knows of it beyond that."""
        state = self.image.states.get(device.name)
        return {
            "name": device.name,
            "state": "unknown" if state is None else "online" if state.online else "offline",
            "cause": "" if state is None else state.cause if health is None else health.cause,
            "text": "" if state is None else state.text if health is None else health.text,
            "since": None if state is None else state.since,
            "failures": 0 if health is None else health.failures,
            "ask_again_s": None if health is None else health.ask_again_s,
            "resting": 0 if health is None else health.resting,
            "tags": self.image.count(device.name),
            "bad": self.image.count_bad(device.name),
        }

    # --- the service manager ---

    async def _watch(self) -> None:
        """Feed the watchdog while the loop and the writer make progress, and say how things stand."""
        period = self._notifier.watchdog_s
        pause = _STATUS_EVERY_S if period is None else min(_STATUS_EVERY_S, period / 3)
        while True:
            if self.spool.busy_s < _WRITER_STUCK_S:
                self._notifier.watchdog()
            self._notifier.status(self.summary())
            await asyncio.sleep(pause)

    def summary(self) -> str:
        """How things stand, in one line."""
        online = sum(state.online for state in self.image.states.values())
        parts = [f"{online} of {len(self._config.devices)} devices online"]
        waiting = {cursor.name: cursor.lag_records for cursor in self.spool.status().cursors}
        for name, forwarder in self._forwarders.items():
            where = "connected" if forwarder.status().connected else "not connected"
            parts.append(f"{name} {where}, {waiting[name]} records waiting")
        return "; ".join(parts)


def _allow_files(connections: int) -> None:
    """Each connection is an open file: use what the system grants this process, and say where that is too little."""
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if granted == resource.RLIM_INFINITY or granted >= wanted:
        return
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    except (OSError, ValueError):  # a confined process may not ask: it goes on with what it has
        allowed = granted
    if allowed < wanted:
        log.warning(
            "broker: the system allows %d open files, limits.connections asks for %d: raise LimitNOFILE= (ulimit -n)",
            allowed,
            wanted,
        )
