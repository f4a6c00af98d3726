"""The gateway file, read, checked and compiled: every mistake at once, or a Config that can be run.

Nothing is touched: no network, no folder made. Files that the gateway file names are read: mappings, lists, secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field

from gateway.driver import Driver, LineKey, Writes, find
from gateway.errors import FileError, Mistake
from gateway.mapping.loader import Loader
from gateway.mapping.reading import Reading
from gateway.mapping.schema import Section
from gateway.model import CLASSES, Device, Place, ScanGroup, Tag
from gateway.settings.broker import Broker, check_live_topics, read_broker
from gateway.settings.commands import Commands, check_commands, once_each, read_commands
from gateway.settings.spool import Spool, check_shares, read_spool
from gateway.settings.uplinks import check_topics, read_uplinks, warn_of_own_broker, wrong_topic
from gateway.uplinks.options import Options

Drivers = Callable[[str], type[Driver]]
"""Gives the driver of a name, or raises UnknownDriverError."""

_PREFIX = "headgate/{gateway}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a checked file says. `prefix` is filled in; `groups` are by device name; devices of a line have one driver.

    A part of a device stands in `devices` like any other, and has no groups: those of its whole hold its tags. The
    devices in `lines` are the wholes, with their parts.

    `warnings` are what works but should not stay so.
    """

    gateway: str
    prefix: str
    spool: Spool
    uplinks: Mapping[str, Options]
    broker: Broker | None = None
    commands: Commands = field(default_factory=Commands)
    devices: tuple[Device, ...]
    groups: Mapping[str, tuple[ScanGroup, ...]]
    lines: Mapping[LineKey, tuple[Device, ...]]
    warnings: tuple[Mistake, ...] = ()


class GatewayFile(Section):
    """The file that says what a gateway does: its devices, its uplinks, and the queue between them."""

    later: ClassVar[frozenset[str]] = frozenset({"http"})

    gateway: str = Field(description="The gateway's name everywhere: client id, topics, metrics.")
    prefix: str = Field(_PREFIX, description="What every topic begins with; by default headgate/{gateway}.")
    spool: dict[str, Any] | None = Field(None, description="The durable queue between the devices and the uplinks.")
    uplinks: dict[str, Any] | None = Field(None, description="Where values go: MQTT sessions by name, any number.")
    broker: dict[str, Any] | None = Field(None, description="The embedded MQTT broker; without the key there is none.")
    commands: dict[str, Any] | None = Field(None, description="How writes to tags are recorded.")
    templates: dict[str, Any] | None = Field(None, description="Devices with holes, by name, for fleets of equal ones.")
    devices: dict[str, Any] = Field(
        default_factory=dict, description="Where values come from: the devices by name. A broker alone needs none."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """What the file says, before its addresses are compiled.

    `keys` and `urls`: each device's line, and its url's place. `listed`: the devices of fleets.
    """

    gateway: str
    prefix: str
    spool: Spool | None
    uplinks: Mapping[str, Options]
    broker: Broker | None
    commands: Commands
    devices: tuple[Device, ...]
    keys: Mapping[str, LineKey]
    urls: Mapping[str, Place]
    listed: frozenset[str]


def load(path: Path, *, drivers: Drivers = find) -> Config:
    """Read a gateway file. Raises FileError with every mistake of schema, references and addresses together."""
    reading = Reading(path.parent, drivers)
    data = reading.yaml(path)
    if data is None:
        reading.mistakes.check()
    draft = _read(data or {}, reading, Place(str(path), 1, 1))
    del data
    return _compiled(draft, reading)


def from_mapping(data: dict[str, Any], *, base: Path, drivers: Drivers = find) -> Config:
    """The same from a dict instead of a file; relative files are relative to `base`. Raises FileError."""
    reading = Reading(base, drivers)
    return _compiled(_read(data, reading, Place()), reading)


def _read(data: dict[str, Any], reading: Reading, start: Place) -> _Draft:
    """Check what stands in the files; mistakes are noted."""
    file = reading.validate(GatewayFile, data, start, lambda _: "")
    name = file.gateway if file else ""
    prefix = file.prefix if file else _PREFIX
    if file is not None:
        reading.check_name(name, "gateway", reading.places.value(data, "gateway"))
    if wrong := wrong_topic(prefix, ["gateway"]):
        reading.mistakes.add(reading.places.value(data, "prefix"), f"prefix: {wrong}")
        prefix = _PREFIX  # what is below it is looked at all the same
    if file is not None and not file.devices and "broker" not in data:
        at = reading.places.locate(data, ["devices"], start, key=True) if "devices" in data else start
        reading.mistakes.add(at, "there are no devices. Write at least one below devices:, or a broker:")
    stored, stored_at = _section(data, "spool"), reading.places.locate(data, ["spool"], start, key=True)
    spool = read_spool(stored, stored_at, reading)
    written = _section(data, "uplinks")
    broker = None
    if "broker" in data and (data["broker"] is None or isinstance(data["broker"], dict)):
        broker = read_broker(data["broker"], reading.places.locate(data, ["broker"], start, key=True), reading)
    elif not written:
        reading.mistakes.warn(start, "there are no uplinks: values go nowhere. Add a section uplinks: or broker:")
    uplinks = read_uplinks(written, name, prefix, reading)
    loader = Loader(reading)
    devices = tuple(loader.devices(_section(data, "devices"), _section(data, "templates")))
    check_topics(uplinks, devices, written, reading)
    if spool is not None:
        check_shares(spool, {tag.record_class for device in devices for tag in device.tags}, stored, stored_at, reading)
    at = reading.places.locate(data, ["commands"], start, key=True)
    commands = read_commands(_section(data, "commands"), at, reading)
    ports = () if broker is None else tuple(address.port for address in broker.options.listen if address.port)
    uplinks = once_each(uplinks, ports, written, reading)
    check_commands(commands, uplinks, devices, at, reading, has_broker="broker" in data)
    if broker is not None:
        check_live_topics(broker, devices, _section(data, "broker"), reading)
        warn_of_own_broker(uplinks, ports, written, reading)
    return _Draft(
        gateway=name,
        prefix=prefix.replace("{gateway}", name),
        spool=spool,
        uplinks=uplinks,
        broker=broker,
        commands=commands,
        devices=devices,
        keys=loader.lines,
        urls=loader.urls,
        listed=loader.listed,
    )


def _compiled(draft: _Draft, reading: Reading) -> Config:
    """Have the drivers plan their reads. Raises FileError with all mistakes so far."""
    reading.places.forget()  # a document of 10,000 tags is larger than what is made of it now, in its place
    wholes = _wholes(draft.devices)
    groups = _compile(draft, wholes, reading)
    lines = _lines(draft, wholes, reading)
    reading.mistakes.check()
    return Config(
        gateway=draft.gateway,
        prefix=draft.prefix,
        spool=cast(Spool, draft.spool),  # None came with a mistake
        uplinks=draft.uplinks,
        broker=draft.broker,
        commands=draft.commands,
        devices=draft.devices,
        groups=groups,
        lines=lines,
        warnings=reading.mistakes.warnings,
    )


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    """A section of the file; empty when it is left out or no section (which is noted elsewhere)."""
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _compile(draft: _Draft, wholes: Mapping[str, Device], reading: Reading) -> dict[str, tuple[ScanGroup, ...]]:
    """The scan groups of each device; what its driver finds wrong is noted."""
    groups: dict[str, tuple[ScanGroup, ...]] = {}
    for device in draft.devices:
        if device.part_of:
            groups[device.name] = ()  # what it gets stands in the groups of the whole
            continue
        try:
            groups[device.name] = tuple(_groups(wholes[device.name], reading))
        except FileError as error:
            for mistake in error.mistakes:
                at = mistake.place if mistake.place.line else device.place
                mine = at == device.place or (device.name in draft.listed and at.file == device.place.file)
                reading.mistakes.add(at, f"device '{device.name}': {mistake.text}" if mine else mistake.text)
    return groups


def _wholes(devices: Iterable[Device]) -> dict[str, Device]:
    """The devices that are no parts, with their parts and all tags, as their drivers know them."""
    wholes = {device.name: device for device in devices if not device.part_of}
    parts: dict[str, list[Device]] = {}
    for device in devices:
        if device.part_of:
            parts.setdefault(device.part_of, []).append(device)
    for name, found in parts.items():
        own = wholes[name]
        wholes[name] = replace(own, parts=tuple(found), tags=(*own.tags, *(tag for part in found for tag in part.tags)))
    return wholes


def _groups(device: Device, reading: Reading) -> Iterator[ScanGroup]:
    """A device's scan groups, the most important first: its driver plans the tags of each class by themselves.

    Raises FileError with the mistakes of all classes.
    """
    driver = reading.drivers(device.driver)
    used = {tag.record_class for tag in device.tags} or {"data"}
    mistakes: dict[Mistake, None] = {}  # what is wrong with the device itself is found with each class
    for name in CLASSES:
        if name not in used:
            continue
        tags = tuple(tag for tag in device.tags if tag.record_class == name)
        try:
            compiled = driver.compile(device, tags)
        except FileError as error:
            mistakes |= dict.fromkeys(error.mistakes)
            continue
        mistakes |= dict.fromkeys(_unwritable(driver, device, tags))
        mistakes |= dict.fromkeys(mistake for group in compiled for mistake in _unlimited(group))
        for group in compiled:  # a driver need not know of classes
            yield group if group.record_class == name else replace(group, record_class=name)
    if mistakes:
        raise FileError(mistakes)


def _unwritable(driver: type[Driver], device: Device, tags: Iterable[Tag]) -> Iterator[Mistake]:
    """What is wrong with tags that shall be written; that a driver cannot write at all is noted where tags are read."""
    for tag in tags:
        if tag.write is None or not issubclass(driver, Writes):
            continue
        try:
            driver.check_write(device, tag)
        except ValueError as error:
            yield Mistake(tag.place, f"tag '{tag.name}': write: {error}")


def _unlimited(group: ScanGroup) -> Iterator[Mistake]:
    """Limits of what is written to tags that are no numbers to whoever writes them: they would hold nothing."""
    for tag, kind in zip(group.tags, group.types, strict=True):
        rules = tag.write
        if rules is None or (rules.min is None and rules.max is None) or not kind.startswith(("bool", "string")):
            continue
        what = "a text. Write values: with those that may be written" if kind.startswith("string") else "true or false"
        yield Mistake(tag.place, f"tag '{tag.name}': write: min and max need a number, and the tag is {what}")


def _lines(draft: _Draft, wholes: Mapping[str, Device], reading: Reading) -> dict[LineKey, tuple[Device, ...]]:
    """The devices of each line. One port cannot be run with two sets of parameters, nor by two drivers."""
    first: dict[str, tuple[LineKey, Device]] = {}
    lines: dict[LineKey, tuple[Device, ...]] = {}
    for device in draft.devices:
        key = draft.keys.get(device.name)
        if key is None:
            continue
        other_key, other = first.setdefault(key.port, (key, device))
        where = f"device '{device.name}': {key.port} is used by device '{other.name}' ({other.place})"
        if device.driver != other.driver:
            at = draft.urls[device.name]
            reading.mistakes.add(at, f"{where} with driver {other.driver}. A port has one driver")
        elif key != other_key:
            at = draft.urls[device.name]
            differ = f"'{key.parameters}', there '{other_key.parameters}'"
            reading.mistakes.add(at, f"{where} with other parameters: here {differ}. Make them equal")
        lines[key] = (*lines.get(key, ()), wholes[device.name])
    return lines
