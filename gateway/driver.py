"""The driver contract, and finding drivers by entry point.

A driver owns one *line* (a connection or a serial port) and all devices on it. It reads and it says what failed; it
never sleeps between polls, never retries for ever, never logs outages, never scales: the frame (`acquisition/line.py`)
does that for all drivers alike. `read` is the one required verb; the others are protocols a driver may also fulfil.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import BaseModel

from gateway.certificates import Certificates
from gateway.clock import Clock
from gateway.errors import HeadgateError
from gateway.metrics import Metrics
from gateway.model import Batch, Device, Quality, ScanGroup, Tag, Value

ENTRY_POINTS = "headgate.drivers"


class UnknownDriverError(HeadgateError):
    """No installed package offers a driver of that name."""


@dataclass(frozen=True, slots=True)
class LineKey:
    """Identity of a line. Devices with the same `port` share it, and must agree on `parameters` (baud, parity, …)."""

    port: str
    parameters: str = ""


class Driver(Protocol):
    """One line and its devices: constructed = validated, entered = connected, left = closed, and entered again.

    `DeviceOptions` and `TagOptions` are pydantic models of the keys that only this driver knows, over and above those
    every device and tag has; the file's checker and the JSON Schema are composed from them.
    """

    DeviceOptions: ClassVar[type[BaseModel]]
    TagOptions: ClassVar[type[BaseModel]]

    def __init__(self, devices: Sequence[Device], *, clock: Clock, metrics: Metrics) -> None:
        """Take the devices of one line. No I/O."""

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:
        """Normalise a device's url. Raises ValueError with the cure when it cannot be used."""

    @classmethod
    def compile(cls, device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
        """Check addresses and plan reads, without I/O and without importing the protocol library.

        Called once for each class of tags that the device has. Raises FileError with every mistake found.
        """

    async def __aenter__(self) -> Self:
        """Connect. Raises LineError."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once, raw (unscaled). Tags that failed alone come back as None with their quality.

        Raises DeviceError when the unit failed as a whole, LineError when the line did.
        """


@runtime_checkable
class Probes(Protocol):
    """A driver that can find out cheaply whether a device is there: what an offline device is asked with."""

    async def probe(self, device: Device) -> None:
        """One read, the cheapest the device has. Raises DeviceError when it is silent, LineError when the line is."""


@runtime_checkable
class Subscribes(Protocol):
    """A driver that is told values: what comes of groups with `is_pushed` is listened to, and they are never polled."""

    def subscribe(self, groups: Sequence[ScanGroup]) -> AsyncIterator[Batch]:
        """Listen to these groups, raw (unscaled); called once for each connection, and closed with it.

        Each tag comes once at first, and then whenever there is news. Tags that fail alone come as None with their
        quality. Values missed while there was no connection come first, as batches with `is_history`, in order.
        Raises LineError when the line is gone.
        """


@runtime_checkable
class Regroups(Protocol):
    """A driver that knows only when it is connected what its groups are: patterns become tags, types are told."""

    def regroup(self, device: Device, groups: Sequence[ScanGroup]) -> Sequence[ScanGroup]:
        """The groups of a device in this connection, asked right after entering; `groups` are those in use before it.

        The same objects where nothing changed.
        """


@runtime_checkable
class Writes(Protocol):
    """A driver that can write tags. Values are raw: scaling and the user's limits were applied before."""

    @classmethod
    def check_write(cls, device: Device, tag: Tag) -> None:
        """Raises ValueError with the cure where this tag can never be written. No I/O."""

    async def write(
        self, device: Device, tag: Tag, value: Value, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Write one value, before any poll that waits. Returns when the device has acknowledged it.

        `is_wanted` is asked at the moment when the value would leave; where it says no, ExpiredError is raised instead.
        Raises ValueError when the value does not fit the tag's type (nothing was sent then), TagError when the device
        refused, DeviceError and LineError when it cannot be known whether it was done.
        """

    async def read_tag(self, device: Device, tag: Tag) -> Value:
        """The tag's raw value now, read by itself and before any poll that waits. Raises like `write`."""


@runtime_checkable
class Mirrors(Protocol):
    """A driver whose tags may be written in more ways than one, and that knows how they read then."""

    def as_read(self, device: Device, tag: Tag, value: Value) -> Value:
        """What the tag reads when `value` has been written to it, both raw: the label of a number, a time in UTC.

        Raises ValueError where the value does not fit. No I/O.
        """


@runtime_checkable
class Learns(Protocol):
    """A driver that finds out things about its devices which are worth keeping across restarts."""

    def lessons(self) -> dict[str, Any]:
        """What was learned so far, as a JSON-able document."""

    def recall(self, lessons: Mapping[str, Any]) -> None:
        """Take up what `lessons` gave in an earlier run; what does not fit the present file is left out, silently."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `check` says of a line. `plan`: a line of text for each request, as it will be asked.

    `busy` is the share of time that polling takes, 1.0 is all of it, None where nobody can know; where it is too much,
    `slow` names the tags to slow down first.
    """

    plan: tuple[str, ...]
    busy: float | None = None
    slow: tuple[str, ...] = ()


@runtime_checkable
class Explains(Protocol):
    """A driver that can say beforehand how it will read, and what that costs the line."""

    @classmethod
    def explain(cls, devices: Sequence[Device], groups: Sequence[ScanGroup]) -> Explanation:
        """How the devices of one line will be read; `groups` are all of theirs. No I/O."""


@runtime_checkable
class Simulates(Protocol):
    """A driver that can pretend to be devices, for demo, bench and tests."""

    @classmethod
    def simulate(cls) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Start simulated devices on loopback; gives the `devices` section of a gateway file that reads them."""


@runtime_checkable
class SimulatesLoad(Protocol):
    """A driver that can pretend to be many cheap devices, for measuring what the gateway can do."""

    @classmethod
    def simulate_load(cls, devices: int, tags: int, every: str) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Serve that many devices with that many float32 tags; gives the `devices` section that polls them `every`."""


# --- finding out what is there --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """One of the standard models of registers (SunSpec) that a unit was found to have: `length` registers follow."""

    number: int
    name: str
    address: str
    length: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A unit that answered. `answer` says how, in words; `identity` are texts by name: vendor, product and such."""

    unit: int
    answer: str
    identity: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Model, ...] = ()


@dataclass(frozen=True, slots=True)
class Patch:
    """Neighbouring values as they came over the wire: `count` registers (two bytes each) or bits from `address`."""

    address: str
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Survey:
    """What could be read of an area. `rest` is what was not reached of it; `short` why it makes no sense to go on."""

    patches: tuple[Patch, ...]
    requests: int
    rest: str = ""
    short: str = ""


@dataclass(frozen=True, slots=True)
class Decoding:
    """One way to read a value, in the words of the mapping file, and the value that comes of it."""

    type: str
    order: str
    value: Value


@dataclass(frozen=True, slots=True)
class Expected:
    """A value somebody reads off the device, with its digits after the point; a `tolerance` of 0.01 is 1 % of it."""

    value: float
    digits: int
    tolerance: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where an expected value may live, and how it must be read. A higher `score` is the better guess."""

    expected: float
    address: str
    type: str
    order: str
    scale: float
    value: float
    score: float
    notes: tuple[str, ...] = ()


@runtime_checkable
class Peeks(Protocol):
    """A driver that can be asked without a file: tools open it by a url alone, or ask the one that runs.

    `SCHEMES` are those of its urls. Addresses and areas are in the driver's own words, as in the mapping file.
    """

    SCHEMES: ClassVar[tuple[str, ...]]

    @classmethod
    def bare(cls, url: str, units: Sequence[int], *, timeout_s: float | None, clock: Clock, metrics: Metrics) -> Self:
        """A driver of a line that no file describes. Raises ValueError with the cure. No I/O."""

    @classmethod
    def settings(cls, url: str) -> tuple[str, ...]:
        """The urls to try, best first, where this one leaves open how the line is set; else that url alone."""

    @classmethod
    def units(cls, url: str) -> tuple[int, ...]:
        """The units to look for where nobody says which, in a sensible order."""

    def station(self, unit: int) -> Device:
        """The device of that unit, as the other verbs want it. Raises ValueError where there is none."""

    @classmethod
    def spell(cls, device: Device, tag: Tag, value: Value) -> str:
        """What will be sent to write this, in words. Raises ValueError where it cannot be written."""

    async def discover(self, unit: int, *, patience_s: float | None = None, thorough: bool = False) -> Finding | None:
        """Whether that unit is there, and who it is; `thorough` asks in more than one way. Raises LineError."""

    async def peek(self, unit: int, address: str, count: int) -> Patch:
        """Read now. Raises ValueError for a wrong address, TagError where it is refused, DeviceError, LineError."""

    @classmethod
    def areas(cls) -> tuple[str, ...]:
        """Where values live most often, best first: what to survey where nobody says what."""

    async def survey(self, unit: int, area: str, *, requests: int) -> Survey:
        """Read what can be read of an area with that many requests. Raises ValueError, DeviceError, LineError."""

    @classmethod
    def decodings(cls, patch: Patch, *, kind: str = "", order: str = "") -> list[Decoding]:
        """Every way to read the first value of a patch; with `kind`, all its values one after the other, so read."""

    @classmethod
    def rank(
        cls, first: Sequence[Patch], second: Sequence[Patch], expected: Sequence[Expected]
    ) -> list[list[Candidate]]:
        """For each expected value where it may live, best first; `second` is another reading some time later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One thing in the tree that a device keeps of what it has. `above` is the position of the node it hangs below.

    Positions count what was told so far, from 0, the start, which is below nothing: -1. `address` is what a tag's
    address would be, `tag` what the tag may be called: legal, and no other's; empty for what has no value worth it.
    The rest is there where it was asked for: `type` in the words of mapping files (empty for what has none), `choices`
    the names that its values have, `quality` None where no value was read.
    """

    above: int
    name: str
    kind: Literal["object", "variable", "property", "method"]
    address: str
    tag: str = ""
    type: str = ""
    is_list: bool = False
    choices: tuple[str, ...] = ()
    unit: str = ""
    description: str = ""
    is_readable: bool = True
    is_writable: bool = False
    value: Value = None
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """What is told of nodes beyond their names: `details` are types, units, access; `values` what they hold now."""

    details: bool = False
    values: bool = False


@dataclass(frozen=True, slots=True)
class Explored:
    """Some more nodes of a tree. `asked` of the `known` nodes that may have others below were asked so far.

    `is_cut`: there are more nodes than were wanted, and these are the last. `notes` say what was refused.
    """

    nodes: Sequence[Node]
    asked: int
    known: int
    is_cut: bool = False
    notes: tuple[str, ...] = ()


@runtime_checkable
class Browses(Protocol):
    """A driver whose devices know what they have, and tell it as a tree. `SCHEMES` are those of its urls."""

    SCHEMES: ClassVar[tuple[str, ...]]

    def browse(
        self, device: Device, start: str, *, depth: int | None, most: int, extras: Extras
    ) -> AsyncIterator[Explored]:
        """The nodes from `start` on (an address; empty: all), `depth` levels of them, `most` at most, parents first.

        Raises ValueError for a wrong address, DeviceError where the start cannot be browsed, LineError.
        """


Note: TypeAlias = Callable[[str], None]
"""Takes lines of a recording, as text without line ends. Never raises."""


@runtime_checkable
class Records(Protocol):
    """A driver that can tell every byte of its line while it works."""

    def record(self, note: Note | None) -> None:
        """Tell `note` everything from now on, in the form of a recording, its head first; None ends it."""


@dataclass(slots=True)
class Replay:
    """A recording that is being served as a simulated device: where, and how its requests were answered so far.

    `exact`: as recorded. `image`: from recorded registers, in a shape that was never asked for. `unknown`: not in the
    recording.
    """

    where: str
    exact: int = 0
    image: int = 0
    unknown: int = 0


@runtime_checkable
class Replays(Protocol):
    """A driver that can serve one of its recordings as a simulated device."""

    @classmethod
    def replay(
        cls, recording: str, *, listen: str, speed: float, tell: Callable[[str], None]
    ) -> AbstractAsyncContextManager[Replay]:
        """Serve the text of a recording at `listen`; `speed` 0 answers at once. `tell` hears of unknown requests.

        Raises ValueError where the text is no recording or nobody can listen there; each with the cure.
        """


@runtime_checkable
class Certifies(Protocol):
    """A driver whose devices and the gateway know each other by certificates, which a person approves."""

    @classmethod
    def certificates(cls, device: Device, *, clock: Clock) -> Certificates:
        """Those of a device. No I/O."""


@cache
def find(name: str) -> type[Driver]:
    """The driver of that name. Raises UnknownDriverError, which lists those installed."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise UnknownDriverError(f"there is no driver '{name}'; installed are: {', '.join(sorted(found)) or 'none'}")
    driver: type[Driver] = found[name].load()
    return driver


def installed() -> list[str]:
    """Names of all installed drivers, sorted. Nothing is imported."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})
