"""A block is one request and the tags it feeds; a plan is how a group is read, block by block. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from drivers.modbus.frames.pdu import Request
from drivers.modbus.options import DeviceOptions
from drivers.modbus.values import address as addresses
from drivers.modbus.values import alone
from drivers.modbus.values.decode import Decode, decode_coils, decode_registers, picker
from drivers.modbus.values.meaning import DECODE, Flawed, scaled
from drivers.modbus.values.slots import Slot
from gateway.model import GOOD, Quality


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One request, the tags it feeds in order of address, and the decoder that gives their values in that order."""

    request: Request
    slots: tuple[Slot, ...]
    decode: Decode

    @classmethod
    def of(cls, unit: int, slots: Sequence[Slot]) -> Block:
        """The block that reads exactly these slots, which are in order of address and of one table.

        What other functions read has one address a block.
        """
        table, request = slots[0].address.table, ask(unit, slots)
        if table.alone:
            return cls(request, tuple(slots), alone.decode(slots))
        fields = [replace(s.field, at=s.start - request.address) for s in slots]
        decode = decode_coils(fields, request.count) if table.bits else decode_registers(fields, request.count)
        return cls(request, tuple(slots), decode)

    def __str__(self) -> str:
        if self.slots[0].address.table.alone:
            return str(self.slots[0].address)
        return addresses.span_name(self.request.function, self.request.address, self.request.count)

    def split(self) -> tuple[Block, Block] | None:
        """Two blocks for the same tags, cut at the gap nearest to the middle, or between tags where there is none.

        Tags that share some registers are parted only where nothing else can be, and then both blocks read these. None
        where nothing can be cut: one tag, or tags that live in the very same registers.
        """
        slots = self.slots
        reach = list(accumulate((s.end for s in slots), max))
        cuts = [i for i in range(1, len(slots)) if slots[i].start >= reach[i - 1]]
        cuts = [i for i in cuts if slots[i].start > reach[i - 1]] or cuts
        if not cuts:
            spans = [(s.start, s.end) for s in slots]
            cuts = [i for i in range(1, len(slots)) if spans[i] != spans[i - 1]]
        if not cuts:
            return None
        cut = min(cuts, key=lambda i: abs(2 * i - len(self.slots)))
        return Block.of(self.request.unit, self.slots[:cut]), Block.of(self.request.unit, self.slots[cut:])


def ask(unit: int, slots: Sequence[Slot]) -> Request:
    """The request of the block of these slots."""
    table, first = slots[0].address.table, slots[0].start
    if table.alone:
        return alone.ask(unit, slots[0].address, slots[0].count)
    return Request(unit, table.function, first, max(s.end for s in slots) - first)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a group is read. `requests` stand beside `blocks`; `width` counts the slots: `tags` and the hidden ones.

    `judged` are the positions of tags whose values have a quality of their own or are multiplied by a scale register;
    where there are none, whatever was decoded is good.
    """

    options: DeviceOptions
    blocks: tuple[Block, ...]
    requests: tuple[Request, ...] = field(init=False)
    tags: int = field(init=False)
    width: int = field(init=False)
    judged: tuple[int, ...] = field(init=False)
    scales: tuple[tuple[int, int], ...] = field(init=False)
    _pick: Callable[[Sequence[Any]], Sequence[Any]] | None = field(init=False)

    def __post_init__(self) -> None:
        slots = [s for b in self.blocks for s in b.slots]
        column = {s.position: i for i, s in enumerate(slots)}
        scales = tuple((s.position, s.scale_at) for s in slots if s.scale is not None)
        judged = tuple(sorted(s.position for s in slots if not s.hidden and not s.is_plain))
        object.__setattr__(self, "requests", tuple(b.request for b in self.blocks))
        object.__setattr__(self, "tags", sum(not s.hidden for s in slots))
        object.__setattr__(self, "width", len(slots))
        object.__setattr__(self, "judged", judged)
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "_pick", picker([column[i] for i in range(len(slots))], len(slots)))

    def decode(self, payloads: Sequence[bytes]) -> list[Any]:
        """The values of the slots in the order of their positions, from one payload for each block."""
        values: list[Any] = []
        for block, payload in zip(self.blocks, payloads, strict=True):
            values += block.decode(payload)
        return values if self._pick is None else list(self._pick(values))

    def judge(self, values: list[Any]) -> list[Quality] | None:
        """Make the values of the slots those of the tags, in place. Returns their qualities; None: all are good."""
        for position, scale_at in self.scales:
            values[position] = scaled(values[position], values[scale_at])
        del values[self.tags :]
        flaws: dict[int, Quality] = {}
        for i in self.judged:
            value = values[i]
            if value is None:
                flaws[i] = DECODE
            elif type(value) is Flawed:
                values[i], flaws[i] = value.value, value.quality
        return [flaws.get(i, GOOD) for i in range(len(values))] if flaws else None
