"""Which requests read which tags: checks addresses, merges neighbours where it pays, cuts where the device wants it.

Pure: no I/O. The cost of a read is counted in registers. What a request costs besides its values depends on the line
(`pace.py`): on a serial one its characters, the unit's turnaround and the silence between frames, on a network as much
as 20 registers. So a gap of that many registers between two tags is read rather than paid for with another request.
Merged blocks are the cheapest possible under the device's limits, and a value is never cut in two. What a device was
found to refuse (`learning.py`) is kept apart from what it answers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drivers.modbus.lines.pace import BITS_PER_REGISTER, REQUEST_COST, TURNAROUND_S, Pace
from drivers.modbus.lines.url import route_of
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.block import Block, Plan
from drivers.modbus.values.address import Table
from drivers.modbus.values.slots import Slot, complete, locate, place, scale_slots
from gateway.errors import FileError, Mistake
from gateway.model import Device, ScanGroup, Tag

MAX_TAGS = 1000
MAX_REQUESTS = 64
"""A group has no more tags and takes no more requests than these, so that one device cannot hold the line for ever.
Tags of one request stay together, be they more than 1000 bits."""
MAX_LINE_S = 0.25
"""How long a group may hold a serial line, if it can be cut at all: what is more urgent can go in between groups."""

_GRAIN = 1 << 20
"""Costs are counted in so many parts of a register: where two ways cost the same, the one with fewer requests wins."""

Span = tuple[int, int]
"""First register or bit, and one past the last."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a unit is asked: what a request costs and how much one may ask for, in registers and in bits.

    `apart` holds, for each function, ascending spans that no request may touch together with anything beside them. An
    empty span forbids to read across that address.
    """

    registers: int = REQUEST_COST
    bits: int = REQUEST_COST * BITS_PER_REGISTER
    most_registers: int = DeviceOptions().max_registers
    most_bits: int = DeviceOptions().max_bits
    max_gap: int | None = None
    apart: Mapping[int, Sequence[Span]] = field(default_factory=dict)

    @classmethod
    def of(cls, options: DeviceOptions, pace: Pace, turnaround_s: float = TURNAROUND_S) -> Terms:
        """What the file says of a unit, and the line it is on."""
        registers, bits = pace.worth(turnaround_s, options.request_gap)
        return cls(registers, bits, options.max_registers, options.max_bits, options.max_gap)


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
    try:
        pace = Pace.of(route_of(device.url))
    except ValueError:  # `line_key` says what is wrong with the url; the rest of the file is checked all the same
        pace = Pace()
    terms = Terms.of(options, pace)
    return [
        _group(device, options, every_s, part, rank)
        for every_s, found in slots.items()
        for part in map(complete, _portions(plan_blocks([*found, *scale_slots(found)], terms), pace))
        if part
    ]


def options_of(device: Device) -> DeviceOptions:
    """The device's own options; the defaults where it was made without any."""
    return device.options if isinstance(device.options, DeviceOptions) else DeviceOptions()


def replan(plan: Plan, terms: Terms) -> Plan:
    """The same tags read on other terms. Returns `plan` itself where that changes no request."""
    slots = [slot for block in plan.blocks for slot in block.slots]
    blocks = tuple(Block.of(plan.options.unit, found) for found in plan_blocks(slots, terms))
    new = replace(plan, blocks=blocks)
    return plan if new.requests == plan.requests else new


def plan_blocks(slots: Iterable[Slot], terms: Terms) -> list[list[Slot]]:
    """The slots of one interval as they are to be read together, one list a request, in order of table and address."""
    blocks: list[list[Slot]] = []
    of_table: dict[Table, list[Slot]] = {}
    for slot in slots:
        of_table.setdefault(slot.address.table, []).append(slot)
    for table, found in of_table.items():
        found.sort(key=lambda s: (s.start, s.end))
        if table.alone:
            of_address: dict[tuple[int, int, int], list[Slot]] = {}
            for slot in found:
                of_address.setdefault((slot.start, slot.address.file, slot.count), []).append(slot)
            blocks += of_address.values()
            continue
        most = terms.most_bits if table.bits else terms.most_registers
        cuts = merge(
            [(s.start, s.end) for s in found],
            most=most,
            max_gap=terms.max_gap,
            request_cost=terms.bits if table.bits else terms.registers,
            apart=terms.apart.get(table.function, ()),
        )
        blocks += [found[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    return blocks


def merge(
    spans: Sequence[Span], *, most: int, max_gap: int | None, request_cost: int, apart: Sequence[Span] = ()
) -> list[int]:
    """Where to end each block, so that sum(request_cost + length of block) is as small as it can be.

    `spans` are (start, end) in ascending order; one longer than `most` is a block by itself. The answer holds one past
    the last span of each block, ascending. Spans that overlap stay together as long as `most` allows it. `apart` is as
    in `Terms`.
    """
    clusters = _clusters(spans, most)
    best = [0]  # least cost of the first n clusters
    came_from = [0]
    keys: list[int] = []  # what a block that begins with cluster n owes to its beginning
    window: deque[int] = deque()  # where the block that ends here may begin, the cheapest first
    for n, (start, end, _) in enumerate(clusters):
        is_far = n and max_gap is not None and start - clusters[n - 1][1] > max_gap
        is_alone = n and clusters[n - 1][1] - clusters[n - 1][0] > most
        if is_far or is_alone or (n and apart and _are_apart(clusters[n - 1], clusters[n], apart)):
            window.clear()
        keys.append(best[n] - start * _GRAIN)
        while window and keys[n] <= keys[window[-1]]:
            window.pop()
        window.append(n)
        while len(window) > 1 and end - clusters[window[0]][0] > most:
            window.popleft()
        best.append(keys[window[0]] + (request_cost + end) * _GRAIN + 1)
        came_from.append(window[0])
    cuts: list[int] = []
    n = len(clusters)
    while n:
        cuts.append(clusters[n - 1][2])
        n = came_from[n]
    return cuts[::-1]


def _are_apart(a: tuple[int, int, int], b: tuple[int, int, int], apart: Sequence[Span]) -> bool:
    """Whether one request must not cover both clusters: they touch different spans, or one lies between them."""
    touched = _touched(a, apart)
    if touched != _touched(b, apart):
        return True
    between = bisect_left(apart, (a[1],))
    return touched is None and between < len(apart) and apart[between][1] <= b[0]


def _touched(cluster: tuple[int, int, int], apart: Sequence[Span]) -> Span | None:
    """The first of the spans that shares registers with the cluster."""
    start, end, _ = cluster
    for at in range(max(0, bisect_left(apart, (start,)) - 1), len(apart)):
        first, past = apart[at]
        if first >= end:
            break
        if start < past and first < past:
            return first, past
    return None


def _clusters(spans: Sequence[Span], most: int) -> list[tuple[int, int, int]]:
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


def _portions(blocks: Iterable[list[Slot]], pace: Pace) -> Iterable[list[list[Slot]]]:
    """Blocks dealt out to groups of bearable size."""
    portion: list[list[Slot]] = []
    tags, spent_s = 0, 0.0
    for block in blocks:
        count = max(s.end for s in block) - block[0].start
        cost_s = pace.read_s(count, TURNAROUND_S, bits=block[0].address.table.bits) if pace.is_known else 0.0
        too_much = tags + len(block) > MAX_TAGS or len(portion) == MAX_REQUESTS or spent_s + cost_s > MAX_LINE_S
        if portion and too_much:
            yield portion
            portion, tags, spent_s = [], 0, 0.0
        portion.append(block)
        tags += len(block)
        spent_s += cost_s
    if portion:
        yield portion


def _group(
    device: Device, options: DeviceOptions, every_s: float, blocks: Sequence[Sequence[Slot]], rank: dict[int, int]
) -> ScanGroup:
    """The group of these blocks; its tags stand in the order of the file, which `rank` knows."""
    placed = place(blocks, rank)
    plan = Plan(options=options, blocks=tuple(Block.of(options.unit, block) for block in placed))
    slots = sorted((s for block in placed for s in block if not s.hidden), key=lambda s: s.position)
    types = [s.published for s in slots]
    count = len(plan.requests)
    return ScanGroup.of(device, [s.tag for s in slots], types=types, every_s=every_s, plan=plan, requests=count)
