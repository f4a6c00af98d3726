"""Tags that commands may reach: by the names that topics have, with all that a write needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.acquisition.scaling import Scaling
from gateway.commands.request import RefusalError
from gateway.driver import LineKey
from gateway.floats import shorten
from gateway.model import GOOD, Device, Quality, ScanGroup, Tag, Value, WriteRules

_SET = "/set"


@dataclass(slots=True, eq=False)
class Target:
    """A tag that may be written. `device` is the whole as its driver knows it, `owner` the name that people use.

    `kind` is the type of its samples, `group` and `position` say where they stand: as the file has it at first, then as
    the device told (`Targets.learn`): the type `is_told` where the file names none.
    """

    line: str
    owner: str
    device: Device
    tag: Tag
    rules: WriteRules
    kind: str
    group: ScanGroup
    position: int
    is_told: bool = False

    def __str__(self) -> str:
        return f"{self.owner}/{self.tag.name}"

    def scaled(self, raw: Value) -> tuple[Value, Quality]:
        """What the tag's samples would show where the device holds `raw`."""
        values, quality = Scaling(self.group).apply([raw], GOOD, [self.position])
        value = values[0]
        if self.kind == "float32" and type(value) is float:
            with suppress(OverflowError):  # no 32-bit float: then it has no shorter form either
                (value,) = shorten([value])
        return value, quality if isinstance(quality, Quality) else quality[0]


class Targets:
    """All devices by name, and which of their tags may be written."""

    def __init__(
        self, lines: Mapping[LineKey, Sequence[Device]], groups: Mapping[str, Iterable[ScanGroup]], prefix: str
    ) -> None:
        self._prefix = f"{prefix}/"
        self._devices = {d.name: d for wholes in lines.values() for whole in wholes for d in (whole, *whole.parts)}
        found = (target for key, wholes in lines.items() for d in wholes for target in _of(key.port, d, groups[d.name]))
        self._writable = {(target.owner, target.tag.name): target for target in found}

    def __repr__(self) -> str:
        return f"<Targets: {len(self._writable)} tags of {len(self._devices)} devices>"

    @property
    def lines(self) -> frozenset[str]:
        """The lines that have a tag which may be written."""
        return frozenset(target.line for target in self._writable.values())

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to: a filter for each number of levels that names of tags have; none where none may be."""
        if not self._writable:
            return ()
        depths = {tag.name.count("/") for device in self._devices.values() for tag in device.tags}
        return tuple(f"{self._prefix}+/+{'/+' * depth}{_SET}" for depth in sorted(depths))

    def learn(self, groups: Iterable[ScanGroup]) -> None:
        """What the tags of these groups are, from their driver, once it has asked the device."""
        for group in groups:
            for position, (tag, kind) in enumerate(zip(group.tags, group.types, strict=True)):
                target = self._writable.get((tag.part or group.device, tag.name))
                if target is not None:
                    target.group, target.position, target.kind = group, position, kind
                    target.is_told = not tag.type

    def locate(self, topic: str) -> tuple[str, str] | None:
        """The names of device and tag in a topic of a command; None where it is none."""
        if not (topic.startswith(self._prefix) and topic.endswith(_SET)):
            return None
        device, _, tag = topic[len(self._prefix) : -len(_SET)].partition("/")
        return (device, tag) if device and tag else None

    def has(self, device: str) -> bool:
        """Whether there is a device of that name."""
        return device in self._devices

    def find(self, device: str, tag: str) -> Target:
        """The tag of these names. Raises RefusalError where there is none, or it may not be written."""
        target = self._writable.get((device, tag))
        if target is not None:
            return target
        known = self._devices.get(device)
        if known is None:
            raise RefusalError("unknown", f"there is no device '{device[:64]}'")
        if any(tag == other.name for other in known.tags):
            raise RefusalError("not_writable", f"{device}/{tag} may not be written: its tag has no `write`")
        raise RefusalError("unknown", f"device '{device}' has no tag '{tag[:64]}'")


def _of(line: str, device: Device, groups: Iterable[ScanGroup]) -> Iterator[Target]:
    for group in groups:
        for position, (tag, kind) in enumerate(zip(group.tags, group.types, strict=True)):
            if tag.write is not None:
                yield Target(line, tag.part or device.name, device, tag, tag.write, kind, group, position)
