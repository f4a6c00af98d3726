"""Which requests read which tags: checks addresses, merges neighbours where it pays, cuts where the device wants it.

Pure: no I/O. The cost of a read is counted in registers: a request costs as much as 20 of them. On a serial line at
9600 baud that is 7 and a gateway's turn-around makes it 20 or 30; on a PLC's own port it is far more. So a gap of up to
20 registers between two tags is read rather than paid for with another request. Merged blocks are the cheapest possible
under the device's limits, and a value is never cut in two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from drivers.modbus import address as addresses
from drivers.modbus.address import Address, Table
from drivers.modbus.decode import KINDS, ORDERS, Decode, Field, Kind, decode_bits, decode_registers, picker
from drivers.modbus.options import DeviceOptions, TagOptions
from drivers.modbus.pdu import Request
from gateway.errors import FileError, Mistake
from gateway.model import Device, ScanGroup, Tag, Value

REQUEST_COST = 20
"""What a request costs besides its values, in registers."""
BITS_PER_REGISTER = 16

MAX_TAGS = 1000
MAX_REQUESTS = 64
"""A group has no more tags and takes no more requests than these, so that one device cannot hold the line for ever.
Tags of one request stay together, be they more than 1000 bits."""

_GRAIN = 1 << 20
"""Costs are counted in so many parts of a register: where two ways cost the same, the one with fewer requests wins."""

_NO_OPTIONS = TagOptions()

_MEANT = {
    meant: kind
    for kind, words in {
        "bool": "bit boolean",
        "int16": "int integer short s16 i16",
        "uint16": "uint unsigned ushort word u16",
        "int32": "dint long s32 i32",
        "uint32": "udint ulong dword u32",
        "int64": "lint s64 i64",
        "uint64": "ulint qword u64",
        "float32": "float real single f32",
        "float64": "double lreal f64",
        "bcd16": "bcd",
        "string": "str text ascii char",
    }.items()
    for meant in words.split()
}
"""What other programs call our types."""


# --- nouns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """One tag and what it takes: `count` registers (or one bit) from `start`. `position` is its place in the group."""

    tag: Tag
    address: Address
    kind: Kind
    order: str
    count: int
    size: int
    encoding: str
    position: int = -1

    @property
    def start(self) -> int:
        """First register or bit."""
        return self.address.number

    @property
    def end(self) -> int:
        """One past the last register or bit."""
        return self.address.number + self.count


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One request, the tags it feeds in order of address, and the decoder that gives their values in that order."""

    request: Request
    slots: tuple[Slot, ...]
    decode: Decode

    @classmethod
    def of(cls, unit: int, slots: Sequence[Slot]) -> Block:
        """The block that reads exactly these slots, which are in order of address and of one table."""
        table, first, end = slots[0].address.table, slots[0].start, max(s.end for s in slots)
        if table.bits:
            decode = decode_bits([s.start - first for s in slots], end - first)
        else:
            fields = [Field(s.start - first, s.kind, s.order, s.size, s.address.bit, s.encoding) for s in slots]
            decode = decode_registers(fields, end - first)
        return cls(Request(unit, table.function, first, end - first), tuple(slots), decode)

    def __str__(self) -> str:
        return addresses.span_name(self.request.function, self.request.address, self.request.count)

    def split(self) -> tuple[Block, Block] | None:
        """Two blocks for the same tags, cut at the gap nearest to the middle, or between tags where there is none.

        None where nothing can be cut: one tag, or tags that share registers.
        """
        reach = list(accumulate((s.end for s in self.slots), max))
        cuts = [i for i in range(1, len(self.slots)) if self.slots[i].start >= reach[i - 1]]
        cuts = [i for i in cuts if self.slots[i].start > reach[i - 1]] or cuts
        if not cuts:
            return None
        cut = min(cuts, key=lambda i: abs(2 * i - len(self.slots)))
        return Block.of(self.request.unit, self.slots[:cut]), Block.of(self.request.unit, self.slots[cut:])


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a group is read. `requests` stand beside `blocks`; `fallible` says that bytes may come which are no value."""

    options: DeviceOptions
    blocks: tuple[Block, ...]
    fallible: bool
    requests: tuple[Request, ...] = field(init=False)
    _pick: Callable[[Sequence[Value]], Sequence[Value]] | None = field(init=False)

    def __post_init__(self) -> None:
        positions = [s.position for b in self.blocks for s in b.slots]
        column = {position: i for i, position in enumerate(positions)}
        object.__setattr__(self, "requests", tuple(b.request for b in self.blocks))
        object.__setattr__(self, "_pick", picker([column[i] for i in range(len(positions))], len(positions)))

    def decode(self, payloads: Sequence[bytes]) -> list[Value]:
        """The values of the group, in its order, from one payload for each block."""
        values: list[Value] = []
        for block, payload in zip(self.blocks, payloads, strict=True):
            values += block.decode(payload)
        return values if self._pick is None else list(self._pick(values))


# --- the engine -----------------------------------------------------------------------------------------------------


def compile_groups(device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
    """One group for each interval, or more where it would grow too large. Raises FileError with every mistake."""
    options = options_of(device)
    slots: dict[float, list[Slot]] = {}
    mistakes: list[Mistake] = []
    for tag in tags:
        try:
            slots.setdefault(tag.every_s, []).append(locate(tag, options))
        except ValueError as error:
            mistakes += [Mistake(tag.place, f"tag '{tag.name}': {fault}") for fault in error.args]
    if mistakes:
        raise FileError(mistakes)
    rank = {id(tag): i for i, tag in enumerate(tags)}
    return [
        _group(device, options, every_s, part, rank)
        for every_s, found in slots.items()
        for part in _portions(plan_blocks(found, options))
    ]


def options_of(device: Device) -> DeviceOptions:
    """The device's own options; the defaults where it was made without any."""
    return device.options if isinstance(device.options, DeviceOptions) else DeviceOptions()


def plan_blocks(slots: Iterable[Slot], options: DeviceOptions) -> list[list[Slot]]:
    """The slots of one interval as they are to be read together, one list a request, in order of table and address."""
    blocks: list[list[Slot]] = []
    of_table: dict[Table, list[Slot]] = {}
    for slot in slots:
        of_table.setdefault(slot.address.table, []).append(slot)
    for table, found in of_table.items():
        found.sort(key=lambda s: (s.start, s.end))
        most = options.max_bits if table.bits else options.max_registers
        cost = REQUEST_COST * (BITS_PER_REGISTER if table.bits else 1)
        cuts = merge([(s.start, s.end) for s in found], most=most, max_gap=options.max_gap, request_cost=cost)
        blocks += [found[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    return blocks


def merge(spans: Sequence[tuple[int, int]], *, most: int, max_gap: int | None, request_cost: int) -> list[int]:
    """Where to end each block, so that sum(request_cost + length of block) is as small as it can be.

    `spans` are (start, end) in ascending order, none longer than `most`. The answer holds one past the last span of
    each block, ascending. Spans that overlap stay together as long as `most` allows it.
    """
    clusters = _clusters(spans, most)
    best = [0]  # least cost of the first n clusters
    came_from = [0]
    keys: list[int] = []  # what a block that begins with cluster n owes to its beginning
    window: deque[int] = deque()  # where the block that ends here may begin, the cheapest first
    for n, (start, end, _) in enumerate(clusters):
        if n and max_gap is not None and start - clusters[n - 1][1] > max_gap:
            window.clear()
        keys.append(best[n] - start * _GRAIN)
        while window and keys[n] <= keys[window[-1]]:
            window.pop()
        window.append(n)
        while end - clusters[window[0]][0] > most:
            window.popleft()
        best.append(keys[window[0]] + (request_cost + end) * _GRAIN + 1)
        came_from.append(window[0])
    cuts: list[int] = []
    n = len(clusters)
    while n:
        cuts.append(clusters[n - 1][2])
        n = came_from[n]
    return cuts[::-1]


def _clusters(spans: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int, int]]:
    """(start, end, one past the last span) of runs of overlapping spans, none longer than `most`."""
    clusters: list[tuple[int, int, int]] = []
    for i, (start, end) in enumerate(spans):
        if clusters:
            first, reach, _ = clusters[-1]
            if start < reach and max(end, reach) - first <= most:
                clusters[-1] = (first, max(end, reach), i + 1)
                continue
        clusters.append((start, end, i + 1))
    return clusters


def _portions(blocks: Iterable[list[Slot]]) -> Iterable[list[list[Slot]]]:
    """Blocks dealt out to groups of bearable size."""
    portion: list[list[Slot]] = []
    tags = 0
    for block in blocks:
        if portion and (tags + len(block) > MAX_TAGS or len(portion) == MAX_REQUESTS):
            yield portion
            portion, tags = [], 0
        portion.append(block)
        tags += len(block)
    if portion:
        yield portion


def _group(
    device: Device, options: DeviceOptions, every_s: float, blocks: Sequence[Sequence[Slot]], rank: dict[int, int]
) -> ScanGroup:
    """The group of these blocks; its tags stand in the order of the file, which `rank` knows."""
    slots = sorted((s for block in blocks for s in block), key=lambda s: rank[id(s.tag)])
    position = {id(s.tag): i for i, s in enumerate(slots)}
    placed = [[replace(s, position=position[id(s.tag)]) for s in block] for block in blocks]
    plan = Plan(
        options=options,
        blocks=tuple(Block.of(options.unit, block) for block in placed),
        fallible=any(s.kind.finish is not None for s in slots),
    )
    types = [s.kind.name for s in slots]
    count = len(plan.requests)
    return ScanGroup.of(device, [s.tag for s in slots], types=types, every_s=every_s, plan=plan, requests=count)


_UNSCALED = frozenset({"bits", "bool", "string"})

# --- one tag --------------------------------------------------------------------------------------------------------


def locate(tag: Tag, options: DeviceOptions) -> Slot:
    """What a tag takes. Raises ValueError; each of its arguments is one reason with its cure."""
    address, kind, order = _parts(tag)
    if fault := _misfit(tag, address, kind, order):
        raise ValueError(fault)
    if tag.is_scaled and kind.name in _UNSCALED:
        raise ValueError(f"{kind.name} is no number, it cannot be scaled. Take scale and offset out")
    own = TagOptions.model_validate(tag.options) if tag.options else _NO_OPTIONS
    size = _size(kind, own)
    count = 1 if address.table.bits else (size + 1) // 2
    left = addresses.LAST + 1 - address.number
    if count > left:
        cure = f"{address.table.name}:{addresses.LAST + 1 - count} or lower"
        raise ValueError(f"{kind.name} needs {count} registers, {tag.address} leaves {left}. Use {cure}")
    if not address.table.bits and count > options.max_registers:
        cure = f"length: {options.max_registers * 2} or lower" if kind.name == "string" else "a narrower type"
        most = f"one request takes {options.max_registers} (max_registers)"
        raise ValueError(f"{kind.name} needs {count} registers, {most}. Use {cure}")
    return Slot(tag, address, kind, order, count, size, own.encoding)


def _parts(tag: Tag) -> tuple[Address, Kind, str]:
    """Address, type and order of a tag, each right by itself. Raises ValueError with all that are not."""
    faults: list[str] = []
    parts: list[Any] = []
    for read, text in ((addresses.parse, tag.address), (_kind, tag.type), (_order, tag.order)):
        try:
            parts.append(read(text))
        except ValueError as error:
            faults += error.args
    if faults:
        raise ValueError(*faults)
    address, kind, order = parts
    if kind is None:
        kind = KINDS["bool" if address.table.bits or address.bit is not None else "uint16"]
    return address, kind, order


def _kind(name: str) -> Kind | None:
    """The type of that name; None where the address decides."""
    if not name:
        return None
    if name not in KINDS:
        cure = _MEANT.get(name.lower().strip("_ "), "one")
        raise ValueError(f"there is no type '{name}'. Use {cure} of {', '.join(KINDS)}")
    return KINDS[name]


def _order(name: str) -> str:
    order = name or "ABCD"
    if order not in ORDERS:
        raise ValueError(f"there is no order '{name}'. Use one of {', '.join(ORDERS)}")
    return order


def _misfit(tag: Tag, address: Address, kind: Kind, order: str) -> str:
    """Why address, type and order do not go together; empty when they do."""
    text, is_bool = tag.address, kind.name == "bool"
    if address.table.bits and not is_bool:
        return f"{text} is one bit, {kind.name} needs registers. Use type: bool, or a holding: or input: address"
    if address.bit is not None and not is_bool:
        return f"{text} is one bit of a register, not {kind.name}. Use type: bool, or leave .{address.bit} out"
    if is_bool and not address.table.bits and address.bit is None:
        return f"{text} has 16 bits, bool is one of them. Use {text}.0 for the lowest one, or type: bits for all"
    if address.table.bits and order != "ABCD":
        return f"{text} is one bit and has no order. Leave order: {order} out"
    if order in ("CDAB", "DCBA") and not kind.wide:
        what = "a text" if kind.name == "string" else "one register"
        return (
            f"order {order} moves registers about, {kind.name} is {what}. Leave it out, or use BADC to swap the bytes"
        )
    return ""


def _size(kind: Kind, own: TagOptions) -> int:
    """Bytes of a value. Only strings choose theirs."""
    if kind.registers:
        if own.length is not None:
            raise ValueError(f"length is for strings, {kind.name} has {kind.registers * 2} bytes. Leave length out")
        return kind.registers * 2
    if own.length is None:
        raise ValueError("a string needs its length. Say how many characters it has, like length: 16")
    return own.length
