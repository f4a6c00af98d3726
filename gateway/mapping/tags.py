"""Entries of a tag list, from whichever file, into checked tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from gateway.driver import Driver, Writes
from gateway.mapping.measures import misfit
from gateway.mapping.mistakes import show
from gateway.mapping.reading import Reading, wrong_name
from gateway.mapping.schema import NAME_PATTERN, RESERVED_LEVELS, TagEntry, tag_model, write_rules
from gateway.model import Place, RecordClass, Tag
from gateway.quantities import format_duration
from gateway.secrets import BASE

_NOT_NUMBERS = frozenset({"bits", "bool", "string"})


@dataclass(frozen=True, slots=True)
class Defaults:
    """What tags are that do not say it themselves."""

    every_s: float = 1.0
    on: Literal["change", "always"] = "always"
    max_silence_s: float | None = None
    record_class: RecordClass = "data"


class TagReader:
    """Checks tag lists of one driver. Equal options are one dict for all tags: thousands share it."""

    def __init__(self, name: str, driver: type[Driver], reading: Reading) -> None:
        self._model = tag_model(name, driver.TagOptions)
        self._validate: Callable[..., TagEntry] = self._model.__pydantic_validator__.validate_python
        self._context = {BASE: reading.base}
        self._cannot_write = "" if issubclass(driver, Writes) else f"driver {name} cannot write. Take write out"
        self._options = tuple(driver.TagOptions.model_fields)
        self._no_options: Mapping[str, Any] | None = None
        self._shared: dict[str, Mapping[str, Any]] = {}
        self._reading = reading

    def read(self, entries: dict[str, Any], defaults: Defaults) -> tuple[Tag, ...]:
        """The tags of a list in its order; those with mistakes are noted and left out."""
        places = self._reading.places
        tags = []
        for (name, entry), place in zip(entries.items(), places.keys(entries), strict=True):
            tag = self._tag(name, entry, place, defaults)
            if tag is not None:
                tags.append(tag)
        return tuple(tags)

    def _tag(self, name: str, entry: Any, place: Place, defaults: Defaults) -> Tag | None:
        reading = self._reading
        if not (NAME_PATTERN.fullmatch(name) and name not in RESERVED_LEVELS) and (text := _wrong_tag_name(name)):
            reading.mistakes.add(place, f"tag '{name[:200]}': {text}")
            return None
        if isinstance(entry, str):
            entry = {"address": entry}
        elif not isinstance(entry, dict):
            got = show(entry)
            reading.mistakes.add(place, f"tag '{name}': expected its address or keys, got {got}. Write {{address: …}}")
            return None
        try:
            checked = self._validate(entry, context=self._context)
        except ValidationError as error:
            reading.note(error, self._model, entry, place, lambda _: f"tag '{name}': ")
            return None
        clean = True
        if checked.write is not None and self._cannot_write:
            reading.mistakes.add(reading.places.locate(entry, ["write"], place), f"tag '{name}': {self._cannot_write}")
            return None
        for key, text in _contradictions(checked, defaults):
            reading.mistakes.add(reading.places.locate(entry, [key], place), f"tag '{name}': {text}")
            clean = False
        return self._build(name, checked, reading.places.moved(entry) or place, defaults) if clean else None

    def _build(self, name: str, entry: TagEntry, place: Place, defaults: Defaults) -> Tag:
        on = entry.on or ("always" if entry.deadband is None and entry.max_silence_s is None else "change")
        if entry.on is None and on == "always":
            on = defaults.on
        silence = entry.max_silence_s or defaults.max_silence_s
        return Tag(
            name=name,
            address=entry.address,
            type=entry.type,
            order=entry.order,
            scale=entry.scale,
            offset=entry.offset,
            unit=entry.unit,
            deadband=entry.deadband,
            max_silence_s=silence if on == "change" else None,
            on=on,
            every_s=entry.every_s or defaults.every_s,
            record_class=entry.record_class or defaults.record_class,
            quantity=entry.quantity,
            write=write_rules(entry.write),
            min=entry.min,
            max=entry.max,
            decimals=entry.decimals,
            options=self._options_of(entry),
            place=place,
        )

    def _options_of(self, entry: TagEntry) -> Mapping[str, Any]:
        """The driver's own keys with their defaults; one dict for all tags that say the same."""
        if entry.model_fields_set.isdisjoint(self._options):
            if self._no_options is None:
                self._no_options = {name: getattr(entry, name) for name in self._options}
            return self._no_options
        options = {name: getattr(entry, name) for name in self._options}
        return self._shared.setdefault(repr(options), options)


def _wrong_tag_name(name: str) -> str:
    """What is wrong with the name of a tag, with the cure; empty when nothing is."""
    for level in name.split("/"):
        if not NAME_PATTERN.fullmatch(level):
            return wrong_name(level) if level else "a level between '/' must not be empty"
        if level in RESERVED_LEVELS:
            return f"the level '{level}' is reserved for topics of headgate. Choose another name"
    return ""


def _contradictions(entry: TagEntry, defaults: Defaults) -> Iterator[tuple[str, str]]:
    """What is right by itself and wrong together, as (key, text)."""
    if entry.scale == 0:
        yield "scale", "0 would make every value the offset. Write another number"
    if entry.min is not None and entry.max is not None and entry.min > entry.max:
        yield "min", f"min {entry.min:g} is above max {entry.max:g}. Exchange them"
    if wrong := misfit(entry.quantity, entry.unit):
        yield wrong
    yield from _contradictions_of_change(entry, defaults)
    yield from _contradictions_of_write(entry)
    if entry.type in _NOT_NUMBERS:
        for key in ("scale", "offset", "deadband", "decimals", "min", "max"):
            if key in entry.model_fields_set:
                yield key, f"{key} needs a number, and type is {entry.type}. Take one of them out"


def _contradictions_of_change(entry: TagEntry, defaults: Defaults) -> Iterator[tuple[str, str]]:
    """What is wrong together of when a sample is sent."""
    if entry.on == "always" and entry.deadband is not None:
        yield "on", "'on: always' sends every poll, a deadband sends less. Take one of them out"
    if entry.on == "always" and entry.max_silence_s is not None:
        yield "on", "'on: always' is never silent. Take it or max_silence out"
    every_s = entry.every_s or defaults.every_s
    if entry.max_silence_s is not None and entry.max_silence_s < every_s:
        every = format_duration(every_s)
        yield "max_silence", f"cannot be kept: the tag is polled every {every}. Write {every} or more, or poll faster"


def _contradictions_of_write(entry: TagEntry) -> Iterator[tuple[str, str]]:
    """What is wrong together of what may be written."""
    rules = entry.write
    if rules is None:
        return
    if rules.min is not None and rules.max is not None and rules.min > rules.max:
        yield "write", f"write: min {rules.min:g} is above max {rules.max:g}. Exchange them"
    has_limits = rules.min is not None or rules.max is not None
    if has_limits and entry.type in _NOT_NUMBERS:
        yield "write", f"write: min and max need a number, and type is {entry.type}. Take them out"
    elif has_limits and rules.values:
        yield "write", "write: values are all that may be written, min and max say nothing beside them. Take one out"
