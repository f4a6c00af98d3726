"""Finding out what is there: which units answer, who they are, and what they let be read. Reads only.

A unit is there when it answers at all, be it with an exception. Exceptions 10 and 11 are not its own: a gateway says
that it got no answer. Who it is, three questions tell: the report server ID (function code 17 [V1.1b3 6.13]), the
device identification (43/14 [V1.1b3 6.21]), and the SunSpec marker. A device that knows none of them refuses or stays
silent; after the first silence nothing else is asked of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.exchange import Answer, Transport
from drivers.modbus.tools import sunspec
from drivers.modbus.values import address as addresses
from drivers.modbus.values.address import COIL, DISCRETE, HOLDING, INPUT, Table
from gateway.driver import Finding, Model, Patch, Survey

_NOT_ITS_OWN = ("exception:10", "exception:11")

_MOST_OBJECTS = 16
"""So many requests a device's identity may take: one object a request is the least that a device can give."""
_FIRST_REGULAR = 3
_OBJECTS = {number: name for name, number in requests.IDENTITY.items()}

TABLES = (COIL, DISCRETE, INPUT, HOLDING)
"""The tables that can be read from any address on."""

AREAS = (
    "holding:0-999", "input:0-999",
    "holding:1000-1999", "input:1000-1999",
    "holding:40000-40299", "input:30000-30299",
    "holding:2000-4999", "input:2000-4999",
    "holding:5000-9999", "input:5000-9999",
    "holding:10000-40999", "input:10000-40999",
    "holding:41000-65535", "input:41000-65535",
)  # fmt: skip
"""Where values live most often first, together everything."""

_STRIDES = (1, 2, 4, 8)
_DENSE = 1000
_PATIENT = 64
"""In areas of up to 1000 registers each is asked for. In larger ones the steps grow with each 64 refusals in a row:
an island of eight registers is always met, and read from its beginning then."""
_REFUSALS = ("exception:2", "exception:3", "exception:4")
_MOST_TROUBLES = 3
"""After so many silences or other failures in a row nothing more is asked for."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit on a line, asked one request at a time.

    What is `urgent` goes before the polls, and waits where an earlier answer may still come. A survey is not.
    """

    transport: Transport
    number: int
    timeout_s: float
    gap_s: float = 0.0
    urgent: bool = True

    async def ask(self, request: Request) -> Answer:
        """One request and what came of it. Raises LineError."""
        exchange = await self.transport.fetch([request], timeout_s=self.timeout_s, gap_s=self.gap_s, urgent=self.urgent)
        return exchange.answers[0]

    async def read(self, table: Table, first: int, count: int) -> Answer:
        """Registers or bits of a table. Raises LineError."""
        return await self.ask(Request(self.number, table.function, first, count))


# --- who is there ---------------------------------------------------------------------------------------------------


async def discover(unit: Unit, *, thorough: bool) -> Finding | None:
    """Whether the unit is there, and who it is. Raises LineError."""
    answer = await _knock(unit, thorough=thorough)
    if answer is None:
        return None
    identity: dict[str, str] = {}
    models: tuple[Model, ...] = ()
    if not await _identify(unit, identity) and not await _report(unit, identity):
        models = await _sunspec(unit, identity)
    return Finding(unit.number, answer, identity, models)


async def _knock(unit: Unit, *, thorough: bool) -> str | None:
    """How the unit answered the first question, in words; None where it did not."""
    ways = [(HOLDING, 0), (INPUT, 0), (HOLDING, sunspec.BASES[0])] if thorough else [(HOLDING, 0)]
    for table, first in ways:
        answer = await unit.read(table, first, 1)
        if isinstance(answer, bytes):
            return "values"
        if isinstance(answer, Failure) and answer.cause not in ("timeout", *_NOT_ITS_OWN):
            return answer.cause.replace(":", " ")
    return None


async def _identify(unit: Unit, identity: dict[str, str]) -> bool:
    """Device identification: basic objects, then regular ones. True: the unit fell silent, ask no more."""
    number = 0
    for _ in range(_MOST_OBJECTS):
        answer = await unit.ask(requests.read_identity(unit.number, number))
        if not isinstance(answer, bytes):
            return isinstance(answer, Failure) and answer.cause == "timeout"
        try:
            found = requests.identity_of(answer)
        except ValueError:  # what a device says of itself is worth no more than it is right
            return False
        for known, raw in found.objects.items():
            if text := _printable(raw):
                identity[_OBJECTS.get(known, f"object {known}")] = text
        if found.next is None and number >= _FIRST_REGULAR:
            return False
        following = _FIRST_REGULAR if found.next is None else found.next
        if following <= number:  # it would go round for ever
            return False
        number = following
    return False


async def _report(unit: Unit, identity: dict[str, str]) -> bool:
    """Server ID: what it says is the maker's own; text is shown as text. True: the unit fell silent."""
    answer = await unit.ask(requests.server_id(unit.number))
    if isinstance(answer, bytes):
        identity["server id"] = _id_text(requests.server_id_of(answer))
    return isinstance(answer, Failure) and answer.cause == "timeout"


def _id_text(content: bytes) -> str:
    """Text where most of it is text, else the bytes: numbers stand before and behind it, the maker knows why."""
    text = "".join(chr(byte) for byte in content if 32 <= byte < 127).strip()
    return text if len(text) > len(content) // 2 else content.hex(" ")


def _printable(content: bytes) -> str:
    return "".join(c for c in content.decode("latin-1") if c.isprintable()).strip()


async def _sunspec(unit: Unit, identity: dict[str, str]) -> tuple[Model, ...]:
    """The chain of SunSpec models, and what the first says of the device."""
    for base in sunspec.BASES:
        answer = await unit.read(HOLDING, base, 2)
        if answer == sunspec.MARKER:
            return tuple([model async for model in _chain(unit, base + 2, identity)])
        if isinstance(answer, Failure) and answer.cause == "timeout":
            break
    return ()


async def _chain(unit: Unit, at: int, identity: dict[str, str]) -> AsyncIterator[Model]:
    """Model after model, until the end of the chain or of what can be read."""
    for _ in range(sunspec.MOST_MODELS):
        head = await unit.read(HOLDING, at, sunspec.HEAD)
        model = sunspec.model_at(at, head) if isinstance(head, bytes) else None
        if model is None:
            return
        if model.number == sunspec.COMMON:
            content = await unit.read(HOLDING, at + sunspec.HEAD, min(model.length, sunspec.COMMON_REGISTERS))
            identity |= sunspec.identity(content) if isinstance(content, bytes) else {}
        yield model
        at += sunspec.HEAD + model.length


# --- what can be read -----------------------------------------------------------------------------------------------


def parse_area(text: str) -> tuple[Table, int, int]:
    """Table, first and last register of `holding:0-999` or `40001-40100`. Raises ValueError with the cure."""
    head, dash, tail = text.partition("-")
    table, colon, _ = head.partition(":")
    first = addresses.parse(head)
    last = addresses.parse(table + colon + tail if colon else tail) if dash else first
    if last.table is not first.table or (first.bit, last.bit) != (None, None):
        raise ValueError(f"'{text}' is no area. Write holding:0-999, 40001-40100 or input:100")
    if last.number < first.number:
        raise ValueError(f"'{text}' ends before it begins. Write holding:0-999")
    return first.table, first.number, last.number


async def survey(unit: Unit, area: str, *, requests: int, most: int) -> Survey:
    """Read the registers of an area that can be read, at most `most` at once, with that many requests.

    Where a block is refused a smaller one is asked for, down to one register and, because some devices know pairs only,
    two; what is refused then is left out. Raises ValueError for a wrong area and LineError.
    """
    table, first, last = parse_area(area)
    if table not in (HOLDING, INPUT):
        raise ValueError(f"{area}: only registers are surveyed. Use holding: or input:")
    walk = _Walk(replace(unit, urgent=False), table, last, requests, most, is_dense=last - first < _DENSE)
    at = await walk.go(first)
    patches = tuple(Patch(f"{table.name}:{start}", len(data) // 2, bytes(data)) for start, data in walk.runs)
    rest = f"{table.name}:{at}-{last}" if at <= last and not walk.short else ""
    return Survey(patches, requests - walk.left, rest, walk.short)


class _Walk:
    """How a survey goes on: the runs read so far, what is left of its requests, and what it has met.

    `most` is lowered when a block is read in pieces that was refused as a whole: the device takes no such requests.
    """

    def __init__(self, unit: Unit, table: Table, last: int, left: int, most: int, *, is_dense: bool) -> None:
        self._unit = unit
        self._table = table
        self._last = last
        self._most = most
        self._is_dense = is_dense
        self._refused: tuple[int, int] | None = None  # first and count of a block that may have been too large only
        self._troubles = 0
        self._smallest: int | None = None  # what the device gives at least: 1 register or 2; None: nobody knows yet
        self.left = left
        self.runs: list[tuple[int, bytearray]] = []
        self.short = ""

    async def go(self, at: int) -> int:
        """From there to the end, or as far as the requests last; gives where to go on."""
        size = self._most
        holes = stride = 0
        as_pair = False
        while at <= self._last and not self._is_over():
            count = min(size, self._last + 1 - at)
            data = await self._read(at, count)
            if data is not None:
                if stride > 1:
                    await self._look_back(at, at - stride)
                self._note(at, data)
                if count <= 2:
                    self._smallest = self._smallest or count
                at, size, holes, stride, as_pair = at + count, min(self._most, count * 4), 0, 0, False
            elif self._is_over():
                break
            elif count > (self._smallest or 1) and not as_pair:
                self._refused = self._refused or (at, count)
                size = max(self._smallest or 1, count // 4)
            elif count == 1 and not self._smallest and at % 2 == 0 and at < self._last:
                size, as_pair = 2, True
            else:
                self._refused, as_pair = None, False
                stride = 1 if self._is_dense else _STRIDES[min(holes // _PATIENT, len(_STRIDES) - 1)]
                at, holes, size = at + stride, holes + 1, self._smallest or 1
        return at

    def _is_over(self) -> bool:
        return bool(self.short) or not self.left

    async def _read(self, at: int, count: int) -> bytes | None:
        """The values; None where they are refused, or where it makes no sense to go on, or nothing is left."""
        while self.left:
            self.left -= 1
            answer = await self._unit.read(self._table, at, count)
            if isinstance(answer, bytes):
                self._troubles = 0
                return answer
            if isinstance(answer, Failure) and answer.cause in _REFUSALS:
                self._troubles = 0
                return None
            self._troubles += 1
            if isinstance(answer, Failure) and (answer.cause == "exception:1" or self._troubles == _MOST_TROUBLES):
                self.short = answer.text
                return None
        return None

    async def _look_back(self, at: int, refused: int) -> None:
        """Registers before `at` were stridden over: those next to it that can be read belong to the same island."""
        found = bytearray()
        while at - 1 > refused and (data := await self._read(at - 1, 1)) is not None:
            at -= 1
            found[:0] = data
        if found:
            self._note(at, bytes(found))

    def _note(self, first: int, data: bytes) -> None:
        """Values came: they lengthen the run before them, or begin one."""
        if self.runs and self.runs[-1][0] + len(self.runs[-1][1]) // 2 == first:
            self.runs[-1][1].extend(data)
        else:
            self.runs.append((first, bytearray(data)))
        if self._refused is not None and first + len(data) // 2 >= sum(self._refused):
            self._most = min(self._most, max(len(data) // 2, self._refused[1] // 2))
            self._refused = None
