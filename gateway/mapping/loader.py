"""The sections `devices` and `templates` of a file, with every mapping, profile and list they name, into devices.

A device's tags stand in the file, or in a mapping file (YAML or CSV), or in a profile; tags in the file are added to
those. What a mapping file says of the device (`every`, the driver's keys) is a default: the device's own word wins.

A fleet of equal devices is a template and a list:

    devices:
      meters: {template: meter, instances: meters.csv}     # columns: name, and one for each parameter
      spare: {template: meter, with: {host: 10.0.0.99}, every: 10s}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.driver import Driver, LineKey, UnknownDriverError
from gateway.mapping.mistakes import LATER, keys_of, nearest, show
from gateway.mapping.profiles import find_profile
from gateway.mapping.reading import Label, Reading, missing
from gateway.mapping.schema import (
    RESERVED_DEVICES,
    DeviceDefaults,
    DeviceEntry,
    MappingEntry,
    PartEntry,
    TemplateUse,
    device_model,
    mapping_model,
)
from gateway.mapping.table import read_table
from gateway.mapping.tags import Defaults, TagReader
from gateway.mapping.tags_csv import TagList, read_tags
from gateway.mapping.template import Filling, Template, fill, read_templates
from gateway.model import Device, Place, Tag

_LATER_DRIVERS = frozenset({"serial"})
_MAPPING_ONLY = frozenset({"description", "driver", "identify", "maker", "model", "sources", "tags"})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A device as it stands in the file or as a template made it. `place` is its name's."""

    name: str
    data: dict[str, Any]
    place: Place
    start: Place
    label: Label


@dataclass(frozen=True, slots=True)
class _Source:
    """A mapping file for devices of one driver: its keys for the device, and its tags."""

    name: str
    file: str
    defaults: dict[str, Any]
    tags: dict[str, Any] | TagList


class Loader:
    """Reads devices; every mistake is noted in the reading.

    `lines` and `urls` say, by device, which line it is on and where its url stands.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._mistakes = reading.mistakes
        self._places = reading.places
        self._readers: dict[str, TagReader] = {}
        self._sources: dict[tuple[Path, str], _Source | None] = {}
        self._lists: dict[Path, TagList] = {}
        self.lines: dict[str, LineKey] = {}
        self.urls: dict[str, Place] = {}
        self._listed: set[str] = set()
        self._known_tags: dict[tuple[int, str, Defaults], tuple[Tag, ...]] = {}

    def devices(self, section: dict[str, Any], templates: dict[str, Any]) -> list[Device]:
        """The devices of a file in its order; those with mistakes are noted and left out."""
        ready = read_templates(templates, self._reading)
        seen: dict[str, Place] = {}
        devices: list[Device] = []
        parts: list[_Entry] = []
        for entry in self._entries(section, ready, templates):
            if not self._reading.check_name(entry.name, "device", entry.place, RESERVED_DEVICES):
                continue
            if entry.name in seen:
                self._mistakes.add(
                    entry.place, f"device '{entry.name}' is there already, at {seen[entry.name]}. Rename one"
                )
                continue
            seen[entry.name] = entry.place
            if "part_of" in entry.data:
                parts.append(entry)
            elif (device := self._device(entry)) is not None:
                devices.append(device)
        devices += [part for entry in parts if (part := self._part_of(entry, devices, parts, seen)) is not None]
        self._refuse_strangers(set(seen))
        return devices

    @property
    def listed(self) -> frozenset[str]:
        """The devices that stand in the list of a fleet."""
        return frozenset(self._listed)

    # --- which devices there are ------------------------------------------------------------------------------------

    def _entries(
        self, section: dict[str, Any], templates: dict[str, Template], written: dict[str, Any]
    ) -> Iterator[_Entry]:
        for name, data in section.items():
            place = self._places.key(section, name)
            if not isinstance(data, dict):
                text = f"expected keys and values, got {show(data)}. Write driver:, url: and tags: below it, indented"
                self._mistakes.add(place, f"device '{name}': {text}")
            elif "template" in data:
                yield from self._made(name, data, place, templates, written)
            else:
                yield _Entry(name, data, place, place, _plain(name))

    def _made(
        self, name: str, data: dict[str, Any], place: Place, templates: dict[str, Template], written: dict[str, Any]
    ) -> Iterator[_Entry]:
        """The devices that a template makes."""
        label = _plain(name)
        use = self._reading.validate(TemplateUse, data, place, label)
        if use is None:
            return
        at = self._places.value(data, "template")
        if use.template not in templates:
            if use.template not in written:  # else the template itself is wrong, and noted
                self._mistakes.add(at, label(at) + missing(use.template, "template", written))
            return
        template = templates[use.template]
        beside = {key: data for key in data if key not in keys_of(TemplateUse)}
        if use.instances is None:
            yield from self._one(name, data, place, template, beside)
        elif "with" in data:
            at = self._places.key(data, "with")
            self._mistakes.add(at, f"{label(at)}'with' is for one device, 'instances' for many. Take one of them out")
        else:
            self._reading.check_name(name, "fleet", place)
            yield from self._fleet(data, use.instances, template, beside)

    def _one(
        self, name: str, data: dict[str, Any], place: Place, template: Template, beside: dict[str, dict[str, Any]]
    ) -> Iterator[_Entry]:
        given = data.get("with") or {}
        label = _plain(name, f" (template '{template.name}')")
        start = self._places.key(data, "with") if given else place
        for parameter in given:
            if parameter not in template.parameters:
                at = self._places.key(given, parameter)
                text = f"template '{template.name}' has no parameter '{parameter}'"
                self._mistakes.add(at, f"{label(at)}{text}{nearest(parameter, template.parameters)}")
        said = {key: value for key, value in given.items() if value is not None}
        own = {key: Filling.of(value, self._places.positions(given, key)[1]) for key, value in said.items()}
        lacking = [parameter for parameter in template.required if parameter not in said]
        for parameter in lacking:
            self._mistakes.add(start, f"{label(start)}parameter '{parameter}' has no value. Write it below with:")
        if not lacking:
            yield _Entry(name, self._expand(template, own, beside), place, place, label)

    def _fleet(
        self, data: dict[str, Any], instances: str, template: Template, beside: dict[str, dict[str, Any]]
    ) -> Iterator[_Entry]:
        path = self._reading.base / instances
        asked = self._places.value(data, "instances")
        columns = ("name", *template.parameters)
        required = ("name", *template.required)
        count, before = 0, self._mistakes.count
        for aside, row, position in read_table(
            path, self._reading, known=columns, required=required, asked=asked, apart=("name",), cell=_as_it_is
        ):
            count += 1
            place = self._places.unpack(position)
            name = aside.get("name", "")
            lacking = [p for p in template.required if p not in row]
            for parameter in ["name"] * (not name) + lacking:
                self._mistakes.add(place, f"device '{name}': the cell of column '{parameter}' is empty. Fill it")
            if name and not lacking:
                own = {key: Filling.of_cell(cell, self._places.positions(row, key)[1]) for key, cell in row.items()}
                self._listed.add(name)
                label = _fleet_label(name, template.name, place.file)
                yield _Entry(name, self._expand(template, own, beside), place, template.place, label)
        if not count and self._mistakes.count == before:
            self._mistakes.add(asked, f"{path} has no device. Write a line for each below the first")

    def _expand(self, template: Template, own: dict[str, Filling], beside: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The template's device with its holes filled, and the keys beside the template laid over it."""
        filled: dict[str, Any] = fill(template.device, {**template.defaults, **own}, self._places)
        return self._reading.overlay({**dict.fromkeys(filled, filled), **beside}) if beside else filled

    # --- one device -------------------------------------------------------------------------------------------------

    def _device(self, entry: _Entry) -> Device | None:
        driver = self._driver(entry)
        if driver is None:
            return None
        name = str(entry.data["driver"])
        source = self._source(entry, name, driver)
        model, options = device_model(name, driver.DeviceOptions), keys_of(driver.DeviceOptions)
        self._reading.refuse_unknown(entry.data, DeviceEntry, keys_of(model), entry.label, entry.start)
        defaults, label = (source.defaults, _label_of(source, entry.label)) if source else ({}, entry.label)
        data = {**dict.fromkeys(defaults, defaults), **dict.fromkeys(entry.data, entry.data)}
        base = self._part(data, keys_of(DeviceEntry))
        checked = self._reading.validate(DeviceEntry, base, entry.start, label)
        own = self._reading.validate(driver.DeviceOptions, self._part(data, options), entry.start, label)
        tags = self._tags(entry, name, driver, source, checked) if source else None
        # A device with a mistake will not run, but the rest of it is looked at all the same: all mistakes at once.
        settings = own or driver.DeviceOptions.model_construct()
        if checked is not None:
            self._check_fields(entry, checked.fields)
            key = self._line_key(entry, checked.url, driver, settings)
            if own is not None and key is not None:
                self.lines[entry.name] = key
        if tags is None:
            return None
        return Device(
            name=entry.name,
            driver=name,
            url="" if checked is None else checked.url,
            options=settings,
            tags=tags,
            fields={} if checked is None else checked.fields,
            place=entry.place,
        )

    def _part_of(
        self, entry: _Entry, devices: list[Device], parts: list[_Entry], seen: Mapping[str, Place]
    ) -> Device | None:
        """A part of one of these devices; None when it cannot be, which is noted."""
        self._reading.refuse_unknown(entry.data, PartEntry, keys_of(PartEntry), entry.label, entry.start)
        whole = next((device for device in devices if device.name == entry.data["part_of"]), None)
        if whole is None:
            self._refuse_part(entry, parts, seen)
            return None
        driver = self._reading.drivers(whole.driver)
        source = self._source(entry, whole.driver, driver)
        if source is None:
            return None
        data = {**dict.fromkeys(source.defaults, source.defaults), **dict.fromkeys(entry.data, entry.data)}
        label = _label_of(source, entry.label)
        checked = self._reading.validate(PartEntry, self._part(data, keys_of(PartEntry)), entry.start, label)
        if checked is None:
            return None
        tags = self._tags(entry, whole.driver, driver, source, checked)
        self._check_fields(entry, checked.fields)
        if tags is None:
            return None
        return replace(
            whole,
            name=entry.name,
            tags=tuple(replace(tag, part=entry.name) for tag in tags),
            fields=checked.fields,
            part_of=whole.name,
            place=entry.place,
        )

    def _refuse_part(self, entry: _Entry, parts: list[_Entry], seen: Mapping[str, Place]) -> None:
        """Note why a part has no whole; where the whole itself is wrong, that is noted already."""
        at, name = self._places.locate(entry.data, ["part_of"], entry.start), str(entry.data["part_of"])
        if name == entry.name:
            text = "a device is no part of itself. Name the device that holds it, or leave part_of out"
        elif other := next((part for part in parts if part.name == name), None):
            text = f"'{name}' is itself a part. Name the device that holds both: part_of: {other.data['part_of']}"
        elif name not in seen:
            text = missing(name, "device", seen)
        else:
            return
        self._mistakes.add(at, entry.label(at) + text)

    def _line_key(self, entry: _Entry, url: str, driver: type[Driver], options: BaseModel) -> LineKey | None:
        at = self.urls[entry.name] = self._places.locate(entry.data, ["url"], entry.start)
        try:
            return driver.line_key(url, options)
        except ValueError as error:
            self._mistakes.add(at, f"{entry.label(at)}url: {error}")
            return None

    def _part(self, data: dict[str, dict[str, Any]], keys: list[str]) -> dict[str, Any]:
        return self._reading.overlay({key: source for key, source in data.items() if key in keys})

    def _driver(self, entry: _Entry) -> type[Driver] | None:
        """The driver of a device; None when there is none, which is noted."""
        at = self._places.locate(entry.data, ["driver"], entry.start)
        name = entry.data.get("driver")
        if not isinstance(name, str) or not name:
            text = "'driver' is missing. Name the protocol the device speaks, driver: modbus for example"
            self._mistakes.add(at, entry.label(at) + text)
            return None
        try:
            return self._reading.drivers(name)
        except UnknownDriverError as error:
            text = f"driver '{name}' {LATER}" if name in _LATER_DRIVERS else str(error)
            self._mistakes.add(at, entry.label(at) + text)
            return None

    def _check_fields(self, entry: _Entry, fields: Mapping[str, str]) -> None:
        """Fields go into topics: their names must fit {name}, their texts must be topic levels."""
        for name, text in fields.items():
            at = self._places.locate(entry.data, ["fields", name], entry.start)
            if not name.isidentifier() or not name.isascii() or name in {"prefix", "gateway", "device", "tag"}:
                wrong = f"field '{name}': a field has letters, digits and _, and none of prefix, gateway, device, tag"
                self._mistakes.add(at, entry.label(at) + wrong)
            elif not text or any(c in text for c in "+#\0"):
                wrong = f"field '{name}': {show(text)} cannot stand in a topic. Write text without + and #"
                self._mistakes.add(at, entry.label(at) + wrong)

    # --- its tags ---------------------------------------------------------------------------------------------------

    def _source(self, entry: _Entry, name: str, driver: type[Driver]) -> _Source | None:
        """What `mapping` or `profile` names; an empty source when there is neither, None when it cannot be used."""
        named = [key for key in ("mapping", "profile") if entry.data.get(key) is not None]
        if not named:
            return _Source("", "", {}, {})
        at = self._places.locate(entry.data, [named[-1]], entry.start)
        if len(named) == 2:
            self._mistakes.add(at, f"{entry.label(at)}mapping and profile both name the tags. Take one of them out")
            return None
        value = str(entry.data[named[0]])
        try:
            path = find_profile(value, self._reading.library) if named[0] == "profile" else self._reading.base / value
        except ValueError as error:
            self._mistakes.add(at, entry.label(at) + str(error))
            return None
        if (path, name) not in self._sources:
            self._sources[path, name] = self._read_source(path, value, name, driver, at)
        return self._sources[path, name]

    def _read_source(self, path: Path, name: str, driver_name: str, driver: type[Driver], at: Place) -> _Source | None:
        if path.suffix == ".csv":
            lists = read_tags(path, driver, self._reading, at)
            self._lists[path] = lists
            return _Source(name, str(path), {}, lists)
        if path.suffix not in {".yaml", ".yml"}:
            self._mistakes.add(at, f"{path} is no mapping. A mapping is a .yaml or a .csv file")
            return None
        data = self._reading.yaml(path, at)
        if data is None:
            return None
        start, label = Place(str(path), 1, 1), _nothing
        model = mapping_model(driver_name, driver.DeviceOptions)
        self._reading.refuse_unknown(data, MappingEntry, keys_of(model), label, start)
        entry = self._reading.validate(MappingEntry, self._reading.pick(data, keys_of(MappingEntry)), start, label)
        if entry is None:  # its tags, and what the driver makes of its keys, are looked at all the same
            if not isinstance(data.get("tags"), dict):
                return None
            kept = {key: data for key in data if key in keys_of(driver.DeviceOptions)}
            return _Source(name, str(path), self._reading.overlay(kept), data["tags"])
        if entry.driver not in {None, driver_name}:
            self._mistakes.add(
                at, f"{path} is a mapping for driver {entry.driver}, the device has driver {driver_name}"
            )
            return None
        kept = {key: data for key in data if key in keys_of(model) and key not in _MAPPING_ONLY}
        return _Source(name, str(path), self._reading.overlay(kept), data["tags"])

    def _tags(
        self, entry: _Entry, name: str, driver: type[Driver], source: _Source, checked: DeviceDefaults | None
    ) -> tuple[Tag, ...] | None:
        """The tags of a device from all its lists; None when there is none at all."""
        defaults = _defaults(checked) if checked else Defaults()
        lists = source.tags.of(entry.name) if isinstance(source.tags, TagList) else [source.tags]
        own = entry.data.get("tags", {})
        if not isinstance(own, dict):
            return None  # which is noted
        lists = [entries for entries in (*lists, own) if entries]
        if not lists:
            at = self._places.locate(entry.data, ["tags"], entry.start, key=True)
            where = f"{source.name} has none for it" if source.name else "Write them below tags:, or name a mapping"
            self._mistakes.add(at, f"{entry.label(at)}there are no tags. {where}")
            return None
        if len(lists) > 1:
            self._refuse_twice(entry, lists)
        tags = [tag for entries in lists for tag in self._read_tags(entries, name, driver, defaults)]
        return tuple(tags)

    def _read_tags(
        self, entries: dict[str, Any], name: str, driver: type[Driver], defaults: Defaults
    ) -> tuple[Tag, ...]:
        """The tags of one list; equal lists with equal defaults are read once, however many devices share them."""
        key = (id(entries), name, defaults)
        if key not in self._known_tags:
            reader = self._readers.get(name) or self._readers.setdefault(name, TagReader(name, driver, self._reading))
            self._known_tags[key] = reader.read(entries, defaults)
        return self._known_tags[key]

    def _refuse_twice(self, entry: _Entry, lists: list[dict[str, Any]]) -> None:
        """Note tags that stand in more than one of a device's lists."""
        first = dict.fromkeys(lists[0], lists[0])
        for entries in lists[1:]:
            for tag in entries:
                if tag in first:
                    at = self._places.key(entries, tag)
                    where = self._places.key(first[tag], tag)
                    self._mistakes.add(at, f"{entry.label(at)}tag '{tag}' is there already, at {where}. Rename one")
            first.update(dict.fromkeys(entries, entries))

    def _refuse_strangers(self, devices: set[str]) -> None:
        """Note rows of tag lists for devices that do not exist: a slip of the pen would lose their tags in silence."""
        for lists in self._lists.values():
            for device, place in lists.places.items():
                if device and device not in devices:
                    self._mistakes.add(place, missing(device, "device", devices))


def _defaults(checked: DeviceDefaults) -> Defaults:
    """What a device says of those of its tags that do not say it themselves."""
    return Defaults(checked.every_s, checked.on or "always", checked.max_silence_s, checked.record_class or "data")


def _as_it_is(_column: str, text: str) -> str:
    return text


def _label_of(source: _Source, label: Label) -> Label:
    """A mistake in a mapping file is that of all devices that use it, and told once."""
    return lambda place: "" if source.file and place.file == source.file else label(place)


def _nothing(_place: Place) -> str:
    return ""


def _plain(name: str, origin: str = "") -> Label:
    return lambda _: f"device '{name}'{origin}: "


def _fleet_label(name: str, template: str, instances: str) -> Label:
    """A mistake in the list is one device's, a mistake in the template is everybody's and told once."""
    return lambda place: (
        f"device '{name}' (template '{template}'): " if place.file == instances else f"template '{template}': "
    )
