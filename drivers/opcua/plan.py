"""How the tags of a device are asked for: which groups there are, and what the server is told of each tag. Pure.

Tags of one interval are one group, and one subscription holds all groups with the same interval. A group that grows
beyond MAX_TAGS is cut, for a batch travels as one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.opcua.address import Address, PathAddress, parse
from drivers.opcua.options import DeviceOptions, TagOptions
from gateway.driver import Explanation
from gateway.errors import FileError, Mistake
from gateway.model import Device, ScanGroup, Tag
from gateway.quantities import format_duration

MAX_TAGS = 1000
_CONNECTION = (
    "security", "security_mode", "username", "password", "user_certificate", "user_key", "pki", "application_uri",
    "trust", "timeout", "keep_alive", "session_timeout", "publish_requests",
)  # fmt: skip
_QUEUE_S = 10.0
_LEAST_QUEUE, _MOST_QUEUE = 10, 1000


@dataclass(frozen=True, slots=True)
class Item:
    """What the server is asked for one tag; `deadband` is in raw units, or percent of EURange where `is_percent`."""

    tag: Tag
    address: Address
    sampling_ms: float
    queue: int
    deadband: float | None
    is_percent: bool
    options: TagOptions


@dataclass(frozen=True, slots=True)
class Plan:
    """A group's plan. `items` stand beside the group's tags."""

    options: DeviceOptions
    every_s: float
    items: tuple[Item, ...]


def options_of(device: Device) -> DeviceOptions:
    """The device's own options; the defaults where it was made without any."""
    return device.options if isinstance(device.options, DeviceOptions) else DeviceOptions()


def compile_groups(device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
    """One group for each interval, or more where it would grow too large. Raises FileError with every mistake."""
    options = options_of(device)
    mistakes: list[Mistake] = []
    found: dict[float, list[Item]] = {}
    for tag in tags:
        try:
            found.setdefault(tag.every_s, []).append(item_of(tag))
        except ValueError as error:
            mistakes += [Mistake(tag.place, f"tag '{tag.name}': {fault}") for fault in error.args]
    mistakes += [Mistake(device.place, fault) for fault in faults_of_root(options.root)]
    if mistakes:
        raise FileError(mistakes)
    return [
        group_of(device, options, every_s, items[at : at + MAX_TAGS])
        for every_s, items in found.items()
        for at in range(0, len(items), MAX_TAGS)
    ]


def group_of(
    device: Device, options: DeviceOptions, every_s: float, items: Sequence[Item], types: Sequence[str] = ()
) -> ScanGroup:
    """A group of these items; `types` are what the server says of them, where it was asked."""
    return ScanGroup.of(
        device,
        [item.tag for item in items],
        types=types or [item.tag.type for item in items],
        every_s=every_s,
        plan=Plan(options, every_s, tuple(items)),
        is_pushed=options.mode == "subscribe",
    )


def faults_of_root(root: str) -> list[str]:
    """What is wrong with the node that paths begin at."""
    try:
        address = parse(root)
    except ValueError as error:
        return [f"root: {error}"]
    if isinstance(address, PathAddress):
        return ["root: a path has to begin somewhere. Write the node id of the node that paths begin at, like i=85"]
    return []


def item_of(tag: Tag) -> Item:
    """What the server is asked for a tag. Raises ValueError with every fault."""
    own = TagOptions.model_construct(**tag.options)  # they were checked where the file came in
    address = parse(tag.address)
    if tag.order:
        raise ValueError("order is for registers. OPC UA says itself how a value is encoded. Take it out")
    if isinstance(address, PathAddress) and address.is_pattern and tag.write is not None:
        raise ValueError("an address with wildcards cannot be written. Give what is written a tag of its own")
    sampling_s = tag.every_s if own.sampling is None else own.sampling
    wanted = _QUEUE_S / sampling_s if sampling_s else _MOST_QUEUE
    queue = own.queue or max(_LEAST_QUEUE, min(_MOST_QUEUE, round(wanted)))
    width = None
    if own.range_deadband is not None:
        width = own.range_deadband
    elif tag.deadband is not None and not tag.deadband.percent:
        width = tag.deadband.width / abs(tag.scale)
    return Item(tag, address, sampling_s * 1000, queue, width, own.range_deadband is not None, own)


def terms_of(options: object) -> str:
    """All that a device says of the connection, as text: devices of one server must say the same."""
    if not isinstance(options, DeviceOptions):
        return ""
    said = options.model_dump(include=set(_CONNECTION), exclude_defaults=True)
    return " ".join(f"{key}={said[key]}" for key in _CONNECTION if key in said)


def explain(groups: Sequence[ScanGroup]) -> Explanation:
    """What the server will be asked for."""
    lines = []
    for every_s in sorted({group.every_s for group in groups}):
        own = [group for group in groups if group.every_s == every_s]
        for verb, is_pushed in (("subscribes to", True), ("reads", False)):
            tags = sum(len(group.tags) for group in own if group.is_pushed is is_pushed)
            wild = sum(
                is_wild(item.address) for group in own if group.is_pushed is is_pushed for item in group.plan.items
            )
            if tags:
                more = f", {wild} of them with wildcards" if wild else ""
                lines.append(f"{verb} {tags} node{'s' * (tags != 1)} each {format_duration(every_s)}{more}")
    return Explanation(tuple(lines))


def is_wild(address: Address) -> bool:
    """Whether an address may stand for many tags."""
    return isinstance(address, PathAddress) and address.is_pattern
