"""CSV tag lists, in and out.

    device,tag,address,type,order,scale,offset,unit,deadband,max_silence,every,write,min,max,decimals

and after them `on`, `class`, `quantity` and the keys of the driver. Only `tag` and `address` are needed; an empty cell
means the default. Rows with a device are for that device alone, rows without are for every device that uses the file.
Cells that begin with `[` or `{` are JSON.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, get_args, get_origin

import orjson
from pydantic import BaseModel

from gateway.driver import Driver
from gateway.mapping.document import resolve_scalar
from gateway.mapping.mistakes import keys_of
from gateway.mapping.reading import Reading
from gateway.mapping.schema import TEXT_KEYS, format_deadband, format_write
from gateway.mapping.table import read_table
from gateway.model import Device, Place, Tag
from gateway.quantities import format_duration

COLUMNS = (
    "device", "tag", "address", "type", "order", "scale", "offset", "unit", "deadband", "max_silence", "every", "write",
    "min", "max", "decimals",
)  # fmt: skip
"""The columns of every list, in this order. `on`, `class`, `quantity` and the driver's keys come behind them."""

_LATER_COLUMNS = ("on", "class", "quantity")
_LISTS = (dict, list, tuple)
_CLAIMS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class TagList:
    """A tag list as it stands in a file: entries by device and tag; those of every device under the empty name."""

    by_device: Mapping[str, dict[str, Any]]
    places: Mapping[str, Place]

    def of(self, device: str) -> list[dict[str, Any]]:
        """The entries for a device: those of every device, and its own."""
        return [self.by_device[name] for name in ("", device) if name in self.by_device]


def read_tags(path: Path, driver: type[Driver], reading: Reading, asked: Place) -> TagList:
    """Read a tag list. Mistakes are noted; rows with mistakes are left out."""
    known = (*COLUMNS, *_LATER_COLUMNS, *keys_of(driver.TagOptions))
    by_device: dict[str, dict[str, Any]] = {}
    first: dict[str, Place] = {}
    marks: dict[str, array[int]] = {}
    rows = read_table(
        path,
        reading,
        known=known,
        required=("tag", "address"),
        asked=asked,
        apart=("device", "tag"),
        cell=_cells(driver.TagOptions),
    )
    for aside, entry, position in rows:
        place = reading.places.unpack(position)
        device, tag = aside.get("device", ""), aside.get("tag")
        if tag is None:
            reading.mistakes.add(place, "the row has no tag. Write a name, or empty the row")
            continue
        entries = by_device.setdefault(device, {})
        first.setdefault(device, place)
        if tag in entries:
            reading.mistakes.add(place, f"tag '{tag}' stands twice. Take one of the rows out")
            continue
        entries[tag] = entry
        marks.setdefault(device, array("Q")).extend((position, position))
    for device, entries in by_device.items():
        reading.places.note(entries, marks[device])
        reading.places.keep(entries)
    return TagList(by_device, first)


def _cells(options: type[BaseModel]) -> Callable[[str, str], Any]:
    """What the cell of a column means, given the driver's keys."""
    fields = {field.alias or name: field.annotation for name, field in options.model_fields.items()}
    texts = TEXT_KEYS | {"unit"} | {key for key, annotation in fields.items() if _is_text(annotation)}
    lists = {key for key, annotation in fields.items() if _is_list(annotation)}
    claims = {"write"} | {key for key, annotation in fields.items() if annotation is bool}

    def cell(column: str, text: str) -> Any:
        if text[0] in "[{" and (column in lists or column not in texts):
            return _json(text)
        if column in texts:
            return text
        return _CLAIMS.get(text.lower(), text) if column in claims else resolve_scalar(text)

    return cell


def _is_text(annotation: Any) -> bool:
    """Whether a field takes text: str, or a choice of texts; what a list of texts takes is no text."""
    if get_origin(annotation) in _LISTS:
        return False
    return annotation is str or isinstance(annotation, str) or any(_is_text(a) for a in get_args(annotation))


def _is_list(annotation: Any) -> bool:
    """Whether a field takes a list, or keys and values."""
    return get_origin(annotation) in _LISTS or any(_is_list(a) for a in get_args(annotation))


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def write_tags(devices: Iterable[Device], drivers: Callable[[str], type[Driver]], out: TextIO) -> int:
    """Write the tags of devices as one list that reads back as the same tags. Gives the number of tags.

    Defaults of the device are written into each row, so that the list means the same wherever it is read.
    """
    listed = list(devices)
    keys: dict[str, None] = {}
    for device in listed:
        keys.update(dict.fromkeys(keys_of(drivers(device.driver).TagOptions)))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *_LATER_COLUMNS, *keys])
    for device in listed:
        options = drivers(device.driver).TagOptions
        for tag in device.tags:
            own = _option_cells(options, tag)
            writer.writerow([*_cells_of(device.name, tag), *(own.get(key, "") for key in keys)])
    return sum(len(device.tags) for device in listed)


def _cells_of(device: str, tag: Tag) -> Iterator[str]:
    """A tag as the cells of all columns that are ours. What is as by default stays empty."""
    yield from (device, tag.name, tag.address, tag.type, tag.order)
    yield "" if tag.scale == 1 else repr(tag.scale)
    yield "" if tag.offset == 0 else repr(tag.offset)
    yield tag.unit
    yield format_deadband(tag.deadband) or ""
    yield "" if tag.max_silence_s is None else format_duration(tag.max_silence_s)
    yield format_duration(tag.every_s)
    yield format_write(tag.write)
    yield from ("" if limit is None else repr(limit) for limit in (tag.min, tag.max))
    yield "" if tag.decimals is None else str(tag.decimals)
    yield tag.on
    yield tag.record_class
    yield tag.quantity


def _option_cells(options: type[BaseModel], tag: Tag) -> dict[str, str]:
    """The driver's keys of a tag that are not as by default."""
    plain = options.model_construct(**tag.options).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in plain.items()}
