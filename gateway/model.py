"""The nouns every room speaks: tag, definition, scan group, batch, quality. Frozen; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import orjson

Value: TypeAlias = bool | int | float | str | bytes | list[Any] | dict[str, Any] | None
"""What a sample may hold. Lists and dicts must be JSON-able; None means "no value", its quality says why."""


RecordClass: TypeAlias = Literal["alarm", "event", "data", "diag"]
"""How much a record matters: each class has a queue of its own in the spool."""

CLASSES: tuple[RecordClass, ...] = ("alarm", "event", "data", "diag")
"""All classes, the most important first."""


class Quality(str):
    """How far a value can be trusted: `good`, or `uncertain:CAUSE`, or `bad:CAUSE`, exactly as it goes over the wire.

    Causes: timeout, offline, exception:N, decode, range, sentinel, nan, stale, startup, config, or the name of the
    status that an OPC UA server gave, BadSensorFailure for example. A good value with a status of its own is
    `good:NAME`.
    """

    __slots__ = ()

    @property
    def level(self) -> str:
        """`good`, `uncertain` or `bad`."""
        return self.partition(":")[0]

    @property
    def cause(self) -> str:
        """What is wrong, `exception:2` for example; empty when good."""
        return self.partition(":")[2]


GOOD = Quality("good")


@lru_cache(maxsize=512)
def bad(cause: str) -> Quality:
    """The quality `bad:CAUSE`; equal causes give the same object."""
    return Quality(f"bad:{cause}")


@lru_cache(maxsize=512)
def uncertain(cause: str) -> Quality:
    """The quality `uncertain:CAUSE`; equal causes give the same object."""
    return Quality(f"uncertain:{cause}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the user's files something stands; line and column count from 1, 0 means "the file as a whole"."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Deadband:
    """The change below which a sample is not sent: absolute in engineering units, or percent of the last sent value."""

    width: float
    percent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRules:
    """What may be written to a tag over MQTT. Values and limits are engineering values, after scaling.

    `values` are the only ones allowed, where there are any. Two writes are at least `every_s` apart. A command that
    says when it was made and is older than `expires_s` is refused. `read_back` reads the tag after the write and
    answers with what it holds.
    """

    min: float | None = None
    max: float | None = None
    values: tuple[Value, ...] = ()
    every_s: float = 0.0
    expires_s: float | None = None
    read_back: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A named value of a device, as the mapping declares it.

    `scale` and `offset` turn raw into engineering values: value = raw * scale + offset. `on` says when a sample is
    sent: after every poll, or on significant change (`deadband`) and at least each `max_silence_s`. `options` are the
    keys that only its driver knows, already checked by the driver's own model. Tags of different classes never share a
    group. `part` is the part of its device that it belongs to, empty for the device itself.
    """

    name: str
    address: str
    type: str = ""
    order: str = ""
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    quantity: str = ""
    deadband: Deadband | None = None
    max_silence_s: float | None = None
    on: Literal["change", "always"] = "always"
    every_s: float = 1.0
    record_class: RecordClass = "data"
    write: WriteRules | None = None
    min: float | None = None
    max: float | None = None
    decimals: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    place: Place = field(default=Place(), compare=False)

    @property
    def is_scaled(self) -> bool:
        """Whether the engineering value differs from the raw one."""
        return self.scale != 1 or self.offset != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of the file. `options`: an instance of its driver's `DeviceOptions`; `fields` feed topic templates.

    A device can have `parts`, which are devices to everybody but its driver: their tags stand among its own too, and
    are read together with them. A part says in `part_of` whose it is.
    """

    name: str
    driver: str
    url: str
    options: Any = None
    tags: tuple[Tag, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Device, ...] = ()
    part_of: str = ""
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """What must travel with samples so that they can be understood without the mapping: it is stored beside them.

    All tuples have the length of `names`. `types` are the field's names (`float32`, `uint16`, …): they decide how many
    digits a number deserves. `hash` is BLAKE2b-64 of the content; two definitions are the same when their hashes are.
    """

    device: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    units: tuple[str, ...]
    decimals: tuple[int | None, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    record_class: RecordClass = "data"
    hash: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", blake2b(self.document(), digest_size=8).digest())

    @property
    def is_numeric(self) -> bool:
        """Whether every tag's good values are numbers or booleans, so that C can do sums on all of them at once."""
        return all(kind.startswith(("int", "uint", "float", "bcd", "bool")) for kind in self.types)

    def document(self) -> bytes:
        """The definition as one JSON object: what the hash covers and what the spool stores."""
        document = {
            "device": self.device,
            "names": self.names,
            "types": self.types,
            "units": self.units,
            "decimals": self.decimals,
            "fields": dict(self.fields),
        }
        if self.record_class != "data":  # left out where usual: definitions stored before there were classes stay equal
            document["class"] = self.record_class
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_document(cls, document: bytes) -> Definition:
        """Read back what `document` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        d = orjson.loads(document)
        return Definition(
            device=str(d["device"]),
            names=tuple(map(str, d["names"])),
            types=tuple(map(str, d["types"])),
            units=tuple(map(str, d["units"])),
            decimals=tuple(None if n is None else int(n) for n in d["decimals"]),
            fields={str(k): str(v) for k, v in d["fields"].items()},
            record_class=next((known for known in CLASSES if known == d.get("class")), "data"),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScanGroup(Definition):
    """Tags of one device that are read together, in the order in which their values stand in a batch.

    `plan` belongs to the driver that compiled the group and to nobody else. `requests` is how many one read takes, 0
    where the driver does not know. Where tags belong to parts of the device, `parts` says what each gets. A group that
    `is_pushed` comes by itself: it is listened to, and never polled.
    """

    tags: tuple[Tag, ...]
    every_s: float
    plan: Any = None
    requests: int = 0
    parts: tuple[Part, ...] = ()
    is_pushed: bool = False

    @classmethod
    def of(
        cls,
        device: Device,
        tags: Sequence[Tag],
        *,
        types: Sequence[str],
        every_s: float,
        plan: Any,
        requests: int = 0,
        is_pushed: bool = False,
    ) -> ScanGroup:
        """Bind `tags` of `device`; `types` are the types as read, one a tag. A scaled tag is published as float64."""

        def bound(owner: Device, positions: Sequence[int], parts: tuple[Part, ...]) -> ScanGroup:
            own = [tags[i] for i in positions]
            return cls(
                device=owner.name,
                names=tuple(t.name for t in own),
                types=tuple("float64" if tags[i].is_scaled else types[i] for i in positions),
                units=tuple(t.unit for t in own),
                decimals=tuple(t.decimals for t in own),
                fields=owner.fields,
                record_class=own[0].record_class,
                tags=tuple(own),
                every_s=every_s,
                plan=plan,
                requests=requests,
                parts=parts,
                is_pushed=is_pushed,
            )

        parts = []
        for owner in (device, *device.parts) if device.parts else ():
            name = owner.name if owner.part_of else ""
            positions = tuple(i for i, tag in enumerate(tags) if tag.part == name)
            if positions:
                parts.append(Part(bound(owner, positions, ()), positions))
        return bound(device, range(len(tags)), tuple(parts))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one of a device's parts gets of a group of that device: a group of its own, and where its values stand."""

    group: ScanGroup
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Values of one group that arrived together.

    Dense: `index` is None and `values` stand in the group's order. Sparse: `index` holds ascending positions in the
    group, `values` beside it. `time` is wall time in ms since 1970 (UTC) when the last answer of the read arrived;
    `times` are source times per value, only where they differ. `quality` is one for all, or a list beside `values`.
    `raw` are the undecoded bytes where the driver has them: equal bytes mean equal values. `server_times` are when the
    server that hands the values on had each, in ms, 0 where it does not say; beside `values`, kept where they were
    asked for. `is_history`: read later from what the device remembers, older than what was sent before; `time` is that
    of the newest value then. Nothing here is changed after it was handed on.
    """

    group: Definition
    time: int
    values: Sequence[Value]
    quality: Quality | Sequence[Quality] = GOOD
    index: Sequence[int] | None = None
    times: Sequence[int] | None = None
    raw: bytes | None = None
    server_times: Sequence[int] | None = None
    is_history: bool = False


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Whether a device answers: `online`, or `offline` with its cause; `since` is wall time in ms of the change.

    `text` is what a person reads of the cause: the thing, the place and the cure.
    """

    device: str
    online: bool
    cause: str
    since: int
    text: str = ""
