"""Templates: one device with holes, filled for each of many. Pure, but for what it notes of places.

    templates:
      meter:
        parameters: {host: {}, unit: {default: 1}}
        device:
          driver: modbus
          url: tcp://${host}:502
          unit: ${unit}
          tags: {power: holding:12}

A scalar that is a hole and nothing else takes the value as it is (a number stays a number); a hole within a text takes
its text. Keys are not filled. References to secrets (`${file:…}`) are no holes. Inside `{ }` and `[ ]` YAML wants
quotes around a value with a hole.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.mapping.document import Places, resolve_scalar
from gateway.mapping.mistakes import nearest
from gateway.mapping.reading import Reading
from gateway.mapping.schema import TEXT_KEYS, TemplateEntry
from gateway.model import Place

_HOLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Filling:
    """What goes into a hole: by itself, and within a text; and where the user wrote it (a packed position)."""

    value: Any
    text: str
    position: int

    @classmethod
    def of(cls, value: Any, position: int) -> Filling:
        """From a value of a YAML file."""
        return cls(value, str(value).lower() if isinstance(value, bool) else str(value), position)

    @classmethod
    def of_cell(cls, text: str, position: int) -> Filling:
        """From a cell of a CSV file: its digits stay as they are within a text."""
        return cls(resolve_scalar(text), text, position)


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template. `defaults` are the fillings of parameters that have one."""

    name: str
    parameters: tuple[str, ...]
    defaults: Mapping[str, Filling]
    device: dict[str, Any]
    place: Place

    @property
    def required(self) -> tuple[str, ...]:
        """The parameters without a default."""
        return tuple(name for name in self.parameters if name not in self.defaults)


def read_templates(section: dict[str, Any], reading: Reading) -> dict[str, Template]:
    """The templates of a file; those with mistakes are noted and left out."""
    templates: dict[str, Template] = {}
    for name, data in section.items():
        place = reading.places.key(section, name)
        reading.check_name(name, "template", place)
        entry = reading.validate(TemplateEntry, data, place, lambda _, name=name: f"template '{name}': ")  # type: ignore[misc]
        if entry is None:
            continue
        before = reading.mistakes.count
        _check_holes(name, entry, data, reading)
        if reading.mistakes.count > before:
            continue
        defaults = {}
        for parameter, about in entry.parameters.items():
            if about is not None and about.default is not None:
                position = reading.places.positions(data["parameters"][parameter], "default")[1]
                defaults[parameter] = Filling.of(about.default, position)
        at = reading.places.key(data, "device")
        templates[name] = Template(name, tuple(entry.parameters), defaults, data["device"], at)
    return templates


def fill(node: Any, fillings: Mapping[str, Filling], places: Places) -> Any:
    """A node with its holes filled. What has no hole is the same object, so that equal parts are checked once."""
    return _fill(node, "", fillings, places)[0]


def _fill(node: Any, key: str, fillings: Mapping[str, Filling], places: Places) -> tuple[Any, int | None]:
    """The filled node, and the position of the first filling that went into it; None when none did."""
    if isinstance(node, str):
        return _fill_text(node, key, fillings)
    if not isinstance(node, dict | list):
        return node, None
    items = node.items() if isinstance(node, dict) else ((key, item) for item in node)
    filled = [_fill(item, name, fillings, places) for name, item in items]
    first = next((position for _, position in filled if position is not None), None)
    if first is None:
        return node, None
    old = places.marks(node)
    new: Any = (
        dict(zip(node, (item for item, _ in filled), strict=True)) if isinstance(node, dict) else [i for i, _ in filled]
    )
    if old is not None:
        marks = array("Q", old)
        step = 2 if isinstance(node, dict) else 1
        for k, (item, position) in enumerate(filled):
            if position is not None and not isinstance(item, dict | list):
                marks[k * step + step - 1] = position
        places.note(new, marks)
    places.keep(new, moved=first)
    return new, first


def _fill_text(text: str, key: str, fillings: Mapping[str, Filling]) -> tuple[Any, int | None]:
    first = _HOLE.search(text) if "${" in text else None
    if first is None:
        return text, None
    filling = fillings[first[1]]
    if first[0] == text:
        return (filling.text if key in TEXT_KEYS else filling.value), filling.position
    return _HOLE.sub(lambda hole: fillings[hole[1]].text, text), filling.position


def _check_holes(name: str, entry: TemplateEntry, data: dict[str, Any], reading: Reading) -> None:
    """Note holes without a parameter and parameters with a wrong name; warn of parameters without a hole."""
    label = f"template '{name}': "
    used = set()
    for path, hole in _holes(data["device"], ()):
        used.add(hole)
        if hole not in entry.parameters:
            at = reading.places.locate(data["device"], path, reading.places.key(data, "device"))
            reading.mistakes.add(at, f"{label}there is no parameter '{hole}'{nearest(hole, entry.parameters)}")
    for parameter in entry.parameters:
        at = reading.places.key(data["parameters"], parameter)
        if not _PARAMETER.fullmatch(parameter) or parameter == "name":
            reading.mistakes.add(
                at, f"{label}parameter '{parameter}': a parameter has letters, digits and _, and is not 'name'"
            )
        elif parameter not in used:
            reading.mistakes.warn(
                at, f"{label}parameter '{parameter}' is never used. Write ${{{parameter}}} where it goes"
            )


def _holes(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every hole below a node, with its path."""
    if isinstance(node, str):
        yield from ((path, found[1]) for found in _HOLE.finditer(node))
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from _holes(item, (*path, key))
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from _holes(item, (*path, number))
