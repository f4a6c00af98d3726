"""The devices of one line and how each fares: who is polled, who is probed in its turn, and what the world is told.

States of a device, and what moves it:

    from                   on                      to
    unknown, out of reach  good read               well
    well, on trial         DeviceError             sick
    sick                   failed probe            sick, with a longer back-off
    sick                   good probe              on trial: all its groups are due at once
    sick                   good read of a group    well
    on trial               good read               well
    any but sick           LineError               out of reach
    sick                   LineError               sick

Well is `online`; sick, on trial and out of reach are `offline` to the world. So a device that answers its probe and
nothing else stays offline, and its back-off grows.

A group that is answered in part rests, and is read again in its turn, like a sick device; so does a group that was
silent twice while its device was not. The device stays online and its other groups keep their periods.

A group that is pushed is never polled, so it is never sick either: its first batch in a connection is as good as a read
that was answered, and from then on the device is there as long as the line is. What is silent then is a group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.acquisition.health import Patient, Ward
from gateway.acquisition.parting import Outlet, outlets_of
from gateway.acquisition.schedule import NEVER, Schedule, first_due
from gateway.clock import Clock
from gateway.errors import DeviceError, LineError
from gateway.metrics import Metrics
from gateway.model import CLASSES, Batch, Device, DeviceState, ScanGroup, bad

log = logging.getLogger("headgate.line")

_TURN_PATIENCE_S = 1.0
"""On a line that is always busy, whoever is sick waits for its turn so long, and then goes first; so does a tag that
somebody is in a hurry for."""

_STRIKES = 2
"""How often a group must have been the one that made its device look dead before it is known to be the only one."""


_MOST_CAUSES = 8
"""How many causes of one outage are logged at most: what stands in the way one after the other, each with its cure."""


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """How a device fares. `since`: wall time in ms of the last change of state, None while it is unknown.

    `failures`: failed attempts in a row. `ask_again_s`: it is asked again in so many seconds at the earliest, None
    where it is polled as usual. `resting`: tags of groups that rest while the others are polled. `text`: what a person
    reads of the cause.
    """

    device: str
    state: str
    cause: str
    text: str
    since: int | None
    failures: int
    ask_again_s: float | None
    resting: int


class Unit(Patient):
    """A device on the line and how it fares."""

    __slots__ = (
        "cause",
        "device",
        "failures",
        "is_heard",
        "is_well",
        "logged",
        "missed",
        "online",
        "probes",
        "since",
        "stations",
        "text",
    )

    def __init__(self, device: Device, line: str, metrics: Metrics, dice: Callable[[], float]) -> None:
        super().__init__(dice)
        self.device = device
        self.stations: list[Station] = []
        self.is_well = False
        self.is_heard = False  # whether a group that is pushed came in this connection
        self.missed = 0  # polls of groups that are there no more
        self.online: bool | None = None
        self.cause = ""
        self.text = ""
        self.logged: set[str] = set()  # causes of this outage
        self.since = 0
        self.probes = metrics.counter("device_probes_total", line=line, device=device.name)
        self.failures = metrics.counter("device_failures_total", line=line, device=device.name)

    @property
    def state(self) -> str:
        """`unknown`, `online` or `offline`."""
        return {True: "online", False: "offline", None: "unknown"}[self.online]

    def pulse(self) -> Station:
        """The group that tells whether the device is there: the first of those that were in the way least often."""
        return min(self.polled, key=lambda station: station.strikes)

    @property
    def polled(self) -> list[Station]:
        """Its groups that are asked for."""
        return [station for station in self.stations if not station.group.is_pushed]


class Station(Patient):
    """One scan group with its stages. `index` is its place in the line's schedule, where it is polled at all."""

    __slots__ = ("group", "index", "is_told", "outlets", "strikes", "unit")

    def __init__(self, group: ScanGroup, unit: Unit, dice: Callable[[], float]) -> None:
        super().__init__(dice)
        self.group = group
        self.unit = unit
        self.index = -1
        self.outlets = outlets_of(group)
        self.strikes = 0
        self.is_told = False


class Roster:
    """All devices of a line with their groups, and the schedule of what is read when.

    `pass_on` takes a batch of a group on its way to the world, `tell` each change of a device's state. `stations` are
    the groups that are polled, each with its entry in the schedule; `pushed` are the others. Behind them are entries
    that fall due when called: `turn` when one of the sick may be asked, `beats` when a tag that is pushed was silent
    for too long, and `chores`.
    """

    def __init__(
        self,
        line: str,
        devices: Sequence[tuple[Device, Sequence[ScanGroup]]],
        *,
        pass_on: Callable[[Station, Batch, float], None],
        tell: Callable[[DeviceState], None],
        clock: Clock,
        metrics: Metrics,
        dice: Callable[[], float],
    ) -> None:
        self._line = line
        self._pass_on = pass_on
        self._tell = tell
        self._clock = clock
        self._dice = dice
        self._number = 0
        self._ward = Ward()
        self._beats_at = NEVER
        self.units: list[Unit] = []
        for device, groups in devices:
            unit = Unit(device, line, metrics, dice)
            self.units.append(unit)
            unit.stations = [Station(group, unit, dice) for group in groups]
            metrics.gauge("device_missed_polls_total", partial(self._missed, unit), line=line, device=device.name)
        self._line_up()

    def __repr__(self) -> str:
        return ", ".join(f"{unit.device.name}: {unit.state}" for unit in self.units)

    @property
    def missed(self) -> int:
        """How many polls were left out since the start, because the line was busy when they were due."""
        return sum(map(self._missed, self.units))

    def _missed(self, unit: Unit) -> int:
        return unit.missed + self.schedule.missed_of(station.index for station in unit.polled)

    def start(self, number: int) -> None:
        """Everything is due soon, and nobody is known to be sick. `number` groups stand on the lines before this."""
        self._number = number
        for unit in self.units:
            unit.missed = 0
        self._line_up()
        for patient in (*self.units, *self.stations):
            self._ward.dismiss(patient)

    def _line_up(self) -> None:
        """Give each group its place, and those that are polled their entries in a schedule that is new."""
        everyone = [station for unit in self.units for station in unit.stations]
        self.stations = [station for station in everyone if not station.group.is_pushed]
        self.pushed = [station for station in everyone if station.group.is_pushed]
        for i, station in enumerate(self.stations):
            station.index = i
        self.turn = len(self.stations)
        self.beats, self.chores = self.turn + 1, self.turn + 2
        now, later = self._clock.monotonic(), [NEVER] * 3
        periods = [station.group.every_s for station in self.stations]
        firsts = [first_due(self._number + i, period, now) for i, period in enumerate(periods)]
        ranks = [CLASSES.index(station.group.record_class) for station in self.stations]
        self.schedule = Schedule([*periods, *later], [*firsts, *later], [*ranks, 0, 0, 0])

    def regroup(self, groups: Mapping[Unit, Sequence[ScanGroup]]) -> None:
        """These units have other groups from now on. A group that was there before goes on as it was.

        So does what is known of the unit; where it rests as a whole, its new groups rest with it.
        """
        before, places = self.schedule, {station: station.index for station in self.stations}
        for unit, own in groups.items():
            known = {station.group: station for station in unit.stations}
            unit.stations = [known[group] if group in known else Station(group, unit, self._dice) for group in own]
            for gone in [station for group, station in known.items() if group not in own]:
                self._ward.forget(gone)
                unit.missed += before.missed_of([places[gone]] if gone in places else ())
            if not unit.polled:  # there is nothing to ask it for, so it has no turn
                self._ward.dismiss(unit)
        self._line_up()
        for station in self.stations:
            if station in places:
                self.schedule.adopt(station.index, before, places[station])
            elif station.unit.is_sick:
                self.schedule.park(station.index)

    def health(self) -> list[DeviceHealth]:
        """How each device fares, in the order of the file."""
        now = self._clock.monotonic()
        opens_at = self._ward.opens_at(is_shared=self._is_shared())
        return [
            DeviceHealth(
                device=unit.device.name,
                state=unit.state,
                cause=unit.cause,
                text=unit.text,
                since=None if unit.online is None else unit.since,
                failures=unit.backoff.failures,
                ask_again_s=max(0.0, max(opens_at, unit.retry_at) - now) if unit.is_sick else None,
                resting=sum(len(station.group.names) for station in unit.stations if station.is_sick),
            )
            for unit in self.units
        ]

    def hurry(self, device: str, tag: str) -> bool:
        """Make the group of a tag due now, where it is polled at all. Whether it is."""
        for station in self.stations:  # what is pushed comes by itself
            if any(o.group.device == device and tag in o.group.names for o in station.outlets):
                if not station.unit.is_sick and not station.is_sick:
                    self.schedule.hurry(station.index, self._clock.monotonic(), _TURN_PATIENCE_S)
                    return True
                break
        return False

    def pushes(self, device: str, tag: str) -> Outlet | None:
        """Where a tag comes from that is pushed; None where it is polled or its device is not there."""
        outlets = (o for station in self.pushed if station.unit.is_well for o in station.outlets)
        return next((o for o in outlets if o.group.device == device and tag in o.group.names), None)

    # --- what was silent for too long ---

    def set_beats(self) -> None:
        """Have `beats` fall due when the next tag that is pushed was silent for too long."""
        self._beats_at = min((o.report.next_beat for s in self.pushed for o in s.outlets), default=NEVER)
        self.schedule.call(self.beats, self._beats_at, _TURN_PATIENCE_S)

    def expect_beats(self, station: Station) -> bool:
        """Something of a group was sent: have `beats` fall due by then. Whether that is sooner than it was."""
        at = min(outlet.report.next_beat for outlet in station.outlets)
        if at >= self._beats_at:
            return False
        self._beats_at = at
        self.schedule.call(self.beats, at, _TURN_PATIENCE_S)
        return True

    def silent(self, now: float) -> Outlet | None:
        """Where a tag was silent for the longest, if that is too long."""
        outlets = (outlet for station in self.pushed for outlet in station.outlets)
        longest = min(outlets, key=lambda outlet: outlet.report.next_beat, default=None)
        return longest if longest is not None and longest.report.next_beat <= now else None

    # --- turns ---

    def _is_shared(self) -> bool:
        """Whether there is anybody on the line whom failed attempts would harm."""
        return any(station.unit.is_well and not station.is_sick for station in self.stations)

    def set_turn(self) -> None:
        """Have `turn` fall due when the next of the sick may be asked."""
        self.schedule.call(self.turn, self._ward.next_at(is_shared=self._is_shared()), _TURN_PATIENCE_S)

    def next(self, now: float) -> Unit | Station | None:
        """Whose turn it is now. None where the account has closed since `turn` was set: somebody became well."""
        patient = self._ward.next(now, is_shared=self._is_shared())
        if isinstance(patient, (Unit, Station)):
            return patient
        self.set_turn()
        return None

    # --- what moves a device from state to state ---

    def on_life(self, unit: Unit) -> None:
        """The unit answered a read."""
        unit.backoff.reset()
        unit.is_well = True
        self._set_state(unit, online=True, cause="", text="")

    def on_news(self, station: Station, now: float) -> bool:
        """A batch came of a group that is pushed. Whether that is news of its unit."""
        unit = station.unit
        unit.is_heard = True
        if unit.is_well:
            return False
        self._revive(unit, station, now)
        self.on_life(unit)
        self.set_turn()
        return True

    def on_return(self, unit: Unit, station: Station | None, now: float) -> None:
        """Whose turn it was is sick no more; a group answered, or the probe where `station` is None."""
        if station is not None:
            self._ward.dismiss(station)
            station.backoff.reset()
            station.strikes = 0
            self.schedule.rejoin(station.index, now)
            if station.is_told:
                station.is_told = False
                log.info("device '%s' on %s answers again for %s", unit.device.name, self._line, _names(station))
        self._revive(unit, station, now)
        if station is not None:
            self.on_life(unit)
        self.set_turn()

    def on_failure(self, unit: Unit, station: Station | None, error: DeviceError, cost_s: float) -> None:
        """A read of `station`, or the probe where that is None, failed and cost the line `cost_s`: let rest who did.

        What was answered all the same is kept; where nothing was answered the tags have no value.
        """
        now = self._clock.monotonic()
        unit.failures.value += 1
        if station is not None and error.partial is not None:
            self._rest(station, cost_s, now)
            self._revive(unit, station, now)
            self.on_life(unit)
            self._pass_on(station, error.partial, now)
        elif station is None and unit.is_heard:
            pass  # it has told something while the probe was under way: that is the newer word
        elif station is not None and (unit.is_heard or self._is_alone(station)):
            self._rest(station, cost_s, now)
            self._mark([station], error.cause, now)
            if not station.is_told:
                station.is_told = True
                text = "device '%s' on %s does not answer for %s (%s): %s; its other groups go on"
                log.info(text, unit.device.name, self._line, _names(station), error.cause, error)
        else:
            self._trip(unit, station, error, cost_s, now)
        self.set_turn()

    def _is_alone(self, station: Station) -> bool:
        """Whether a group was silent before, and others of its device are not."""
        return station.is_sick and not all(other.is_sick for other in station.unit.polled)

    def lose_line(self, error: LineError) -> None:
        """All devices are out of reach, which says nothing about each of them."""
        now = self._clock.monotonic()
        for unit in self.units:
            unit.is_well = unit.is_heard = False
            self._mark(unit.stations, error.cause, now)
            self._set_state(unit, online=False, cause=error.cause, text=str(error))

    def _rest(self, station: Station, cost_s: float, now: float) -> None:
        self.schedule.park(station.index)
        self._ward.admit(station, cost_s, now)

    def _trip(self, unit: Unit, station: Station | None, error: DeviceError, cost_s: float, now: float) -> None:
        """The unit as a whole is silent: nothing of it is polled until it answers in its turn."""
        if station is not None and not unit.is_sick:
            station.strikes += 1
        for own in unit.polled:
            self._ward.dismiss(own)
            self.schedule.park(own.index)
        self._ward.admit(unit, cost_s, now)
        unit.is_well = False
        self._mark(unit.stations, error.cause, now)
        self._set_state(unit, online=False, cause=error.cause, text=str(error))

    def _revive(self, unit: Unit, asked: Station | None, now: float) -> None:
        """Read all groups of a unit that was sick at once, but those known to be silent alone: they have their turn."""
        if not unit.is_sick:
            return
        self._ward.dismiss(unit)
        polled = unit.polled
        mute = {station for station in polled if station.strikes >= _STRIKES}
        if len(mute) == len(polled):
            mute.clear()
        for station in polled:
            if station in mute:
                self._ward.keep(station, now)
            elif station is not asked:
                self.schedule.hurry(station.index, now)

    # --- what the world is told ---

    def _mark(self, stations: Iterable[Station], cause: str, now: float) -> None:
        """Every tag of these groups has no value now, for this cause."""
        quality, time = bad(cause), self._clock.wall_ms()
        for station in stations:
            self._pass_on(station, Batch(station.group, time, [None] * len(station.group.names), quality), now)

    def _set_state(self, unit: Unit, *, online: bool, cause: str, text: str) -> None:
        """Tell of a change of state once; a new cause of the same outage is only noted, and logged, for its cure."""
        now, name, line = self._clock.wall_ms(), unit.device.name, self._line
        unit.cause, unit.text = cause, text
        if unit.online is online:
            if not online and cause not in unit.logged and len(unit.logged) < _MOST_CAUSES:
                unit.logged.add(cause)
                log.info("device '%s' is offline still, but now (%s) on %s: %s", name, cause, line, text)
            return
        unit.logged = {cause}
        if not online:
            log.info("device '%s' is offline (%s) on %s: %s; asking again until it answers", name, cause, line, text)
        elif unit.online is None:
            log.info("device '%s' is online on %s", name, line)
        else:
            log.info("device '%s' is online again after %d s on %s", name, (now - unit.since) // 1000, line)
        unit.online, unit.since = online, now
        for told in (unit.device, *unit.device.parts):  # a part comes and goes with its whole
            self._tell(DeviceState(told.name, online, cause, now, text))


def _names(station: Station) -> str:
    """The tags of a group, as far as a line of the log holds them."""
    names = [f"{tag.part}/{tag.name}" if tag.part else tag.name for tag in station.group.tags]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
