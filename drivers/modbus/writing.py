"""Writing tags and reading one by itself: which request it takes, and what the answer to it means.

    | what is written                 | by function                                                       |
    | a coil                          | 5, or 15 with `write_function: multiple`                          |
    | several coils                   | 15                                                                |
    | one register                    | 6, or 16 with `write_function: multiple`                          |
    | several registers               | 16, all in one request: no reader ever sees half of a value       |
    | some bits of a register         | 22, or 3 and then 6 with `bit_write: read_first`                  |
    | with `write_function: read_write` | 23, and what it read back must be what was written              |

A write goes before any poll that waits, and it is never sent twice: after a silence it may have been done, and only a
person or the next poll can tell. A value with a scale register is divided by what that register holds at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import MASK_WRITE, Failure, Request
from drivers.modbus.lines.exchange import EXPIRED, Answer, Exchange, IsWanted
from drivers.modbus.lines.url import route_of
from drivers.modbus.options import DeviceOptions, TagOptions
from drivers.modbus.polling.block import Block, Plan
from drivers.modbus.values import address as addresses
from drivers.modbus.values.decode import decode_coils, decode_registers
from drivers.modbus.values.encode import encode, encode_bits, encode_coils
from drivers.modbus.values.meaning import unscaled
from drivers.modbus.values.slots import Slot, locate, own_options, place, scale_slots
from gateway.errors import DeviceError, ExpiredError, LineError, TagError
from gateway.metrics import Metrics
from gateway.model import Device, Tag, Value

Fetch: TypeAlias = Callable[[DeviceOptions, Sequence[Request], IsWanted | None], Awaitable[Exchange]]
"""Ask a unit, before whatever waits, as long as that is wanted. Raises LineError."""

_UNDONE = frozenset({"exception:1", "exception:2", "exception:3", "exception:6", "exception:10"})
"""What a unit says before it performs a write [V1.1b3 7 and the state diagrams of 6]: it said no, and nothing was done.

1, 2 and 3 are found when the request is looked at; 6 asks to send it again later; 10 is said by a gateway that found no
path. All others may come while or after it is performed: 4 by its sentence, 5 means that it goes on, 8 is a fault of
memory, 11 comes from a gateway that did send it; what a maker's own ones mean only the maker knows.
"""

_UNKNOWN = "it cannot be known whether the write was done"
_READ_ONLY = {
    addresses.INPUT: "input registers are only read",
    addresses.DISCRETE: "discrete inputs are only read",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a tag is written. `slot` stands where it is written, which need not be where it is read."""

    device: str
    options: DeviceOptions
    tag: Tag
    slot: Slot
    function: str

    def __str__(self) -> str:
        return f"{self.device} (unit {self.options.unit}): {self.slot.address}"


def target_of(device: Device, tag: Tag, options: DeviceOptions) -> Target:
    """How the tag is written. Raises ValueError with the cure where it never can be."""
    own = own_options(tag)
    slot = locate(tag, options)
    if own.write_address is not None:
        elsewhere = replace(tag, address=own.write_address, type=slot.kind.name)
        try:
            slot = locate(elsewhere, options)
        except ValueError as error:
            raise ValueError(*(f"write_address: {fault}" for fault in error.args)) from None
    if fault := _unwritable(slot, own, options):
        raise ValueError(fault)
    if options.unit == 0 and route_of(device.url, options.backup).framing != "tcp":
        raise ValueError("unit 0 is all units of the line at once and nobody answers. Write to one unit")
    return Target(device.name, options, tag, slot, own.write_function)


def _unwritable(slot: Slot, own: TagOptions, options: DeviceOptions) -> str:
    """Why what the slot takes cannot be written in one request; empty when it can."""
    address, count, how = slot.address, slot.count, own.write_function
    if address.table not in (addresses.COIL, addresses.HOLDING):
        why = _READ_ONLY.get(address.table, "it is only read")
        return f"{address} cannot be written: {why}. Say where it is written: write_address: holding:100 or coil:5"
    if address.table is addresses.HOLDING and slot.field.bit is not None:
        if how == "auto":
            return ""
        return f"some bits of {address} are written by function 22, or as bit_write says. Leave write_function out"
    if address.table is addresses.COIL:
        most, thing = requests.MAX_WRITTEN_BITS, "coils"
        if how == "read_write":
            return f"function 23 writes registers, {address} is a coil. Use write_function: single or multiple"
    else:
        most = requests.MAX_WRITTEN_WITH_READ if how == "read_write" else requests.MAX_WRITTEN_REGISTERS
        most, thing = min(most, options.max_registers), "registers"
    if how == "single" and (count > 1 or slot.field.count):
        return (
            f"single writes one register or coil, {address} has {count}. Use write_function: multiple, or leave it out"
        )
    if count > most:
        return f"{address} has {count} {thing}, one request writes {most}. Make a tag of each part"
    return ""


def request_of(target: Target, value: Any) -> Request:
    """The request that writes a value of whole registers or coils. Raises ValueError with the range."""
    slot, unit, how = target.slot, target.options.unit, target.function
    if slot.address.table is addresses.COIL:
        bits = encode_coils(slot.field, value)
        if slot.field.count or how == "multiple":
            return requests.write_coils(unit, slot.start, bits)
        return requests.write_coil(unit, slot.start, on=bits[0])
    values = encode(slot.field, value)
    if how == "read_write":
        return requests.write_and_read(unit, slot.start, values, read=slot.start, count=slot.count)
    if len(values) == 2 and how != "multiple" and not slot.field.count:
        return requests.write_register(unit, slot.start, values)
    return requests.write_registers(unit, slot.start, values)


def as_read(slot: Slot, value: Any) -> Value:
    """What a tag reads when it holds what was written: labels for numbers, times in UTC, floats as their registers do.

    With a scale register only the device knows. Raises ValueError with the range.
    """
    field = slot.field
    if slot.scale is not None:
        return value  # type: ignore[no-any-return]
    if slot.address.table is addresses.COIL:
        bits = encode_coils(field, value)
        data = sum(bit << i for i, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
        (read,) = decode_coils([field], slot.count)(data)
    else:
        data = encode(field, value) if field.bit is None else encode_bits(field, value)[1].to_bytes(2)
        (read,) = decode_registers([field], slot.count)(data)
    return read  # type: ignore[no-any-return]


class Writer:
    """Writes and reads single tags of the units of one line, through `fetch`."""

    def __init__(self, fetch: Fetch, metrics: Metrics) -> None:
        self._fetch = fetch
        self._metrics = metrics
        self._changing = asyncio.Lock()  # two changes of bits of one register must not read before either has written

    async def write(self, target: Target, value: Value, is_wanted: IsWanted | None = None) -> None:
        """Write one value. Raises ValueError before anything is sent, TagError, DeviceError or LineError after.

        ExpiredError: it was not wanted any more when its turn came.
        """
        self._metrics.counter("modbus_writes_total", device=target.device).value += 1
        try:
            await self._write(target, value, is_wanted)
        except (TagError, DeviceError, LineError) as error:
            failures = self._metrics.counter("modbus_write_failures_total", device=target.device, cause=error.cause)
            failures.value += 1
            raise

    async def _write(self, target: Target, value: Any, is_wanted: IsWanted | None) -> None:
        slot = target.slot
        if slot.scale is not None:
            exponent = await self._read(target.device, target.options, scale_slots([slot])[0])
            value = unscaled(value, exponent, whole=slot.kind.is_whole)
        if slot.field.bit is not None:
            await self._write_bits(target, *encode_bits(slot.field, value), is_wanted)
            return
        request = request_of(target, value)
        payload = await self._send(target, request, is_wanted)
        if target.function == "read_write" and payload != encode(slot.field, value):
            raise TagError(f"{target}: the write was answered, but the device does not hold the value", cause="range")

    async def _write_bits(self, target: Target, mask: int, bits: int, is_wanted: IsWanted | None) -> None:
        unit, address = target.options.unit, target.slot.start
        if target.options.bit_write == "masked":
            await self._send(target, requests.mask_register(unit, address, mask=mask, bits=bits), is_wanted)
            return
        async with self._changing:
            word = Request(unit, addresses.HOLDING.function, address, 1)
            held = int.from_bytes(await self._ask(f"{target}", target.options, word))
            changed = held & ~mask | bits
            await self._send(target, requests.write_register(unit, address, changed.to_bytes(2)), is_wanted)

    async def _send(self, target: Target, request: Request, is_wanted: IsWanted | None) -> bytes:
        """Send a write. Raises TagError where the device says no, ExpiredError, else DeviceError or LineError."""
        what = f"{target} (function {request.function})"
        try:
            answer = await self._one(target.options, request, is_wanted)
        except LineError as error:
            raise LineError(f"{what}: {error}: {_UNKNOWN}", cause=error.cause) from error
        if isinstance(answer, bytes):
            return answer
        if answer is EXPIRED:
            raise ExpiredError(f"{what}: {answer.text}", cause=answer.cause)
        text = f"{what}: {answer.text}"
        if answer.cause == "exception:1" and request.function == MASK_WRITE:
            text += ". Devices that refuse it take bit_write: read_first"
        if answer.cause not in _UNDONE:
            raise DeviceError(f"{text}: {_UNKNOWN}", cause=answer.cause)
        if answer.cause == "exception:10":
            text += ": nothing was written"
        raise TagError(text, cause=answer.cause)

    async def read(self, device: Device, tag: Tag, options: DeviceOptions) -> Value:
        """The tag's value now, read by itself with its scale register; None where the device says that it has none.

        Raises TagError, DeviceError or LineError.
        """
        slot = locate(tag, options)
        value: Value = await self._read(device.name, options, slot)
        return value

    async def _read(self, device: str, options: DeviceOptions, slot: Slot) -> Any:
        plan = _plan_of(slot, options)
        payloads = []
        for block in plan.blocks:
            what = f"{device} (unit {options.unit}): {block} (function {block.request.function})"
            payloads.append(await self._ask(what, options, block.request))
        values = plan.decode(payloads)
        quality = plan.judge(values)
        if quality is not None and quality[0].cause == "decode":
            raise TagError(f"{device} (unit {options.unit}): {slot.address} holds no {slot.kind.name}", cause="decode")
        return values[0]

    async def _ask(self, what: str, options: DeviceOptions, request: Request) -> bytes:
        answer = await self._one(options, request)
        if isinstance(answer, bytes):
            return answer
        failed = DeviceError if answer.act in ("unit", "busy") else TagError
        raise failed(f"{what}: {answer.text}", cause=answer.cause)

    async def _one(
        self, options: DeviceOptions, request: Request, is_wanted: IsWanted | None = None
    ) -> bytes | Failure:
        answer: Answer = (await self._fetch(options, [request], is_wanted)).answers[0]
        if answer is None:
            raise LineError("not asked: the line was closed", cause="offline")
        return answer


def _plan_of(slot: Slot, options: DeviceOptions) -> Plan:
    """How one tag is read by itself: one request, or another one for a scale register that is far away."""
    # a scale register that is read for itself is no hidden one here
    slots = sorted([replace(slot, hidden=False), *scale_slots([slot])], key=lambda s: (s.start, s.end))
    near = len({s.address.table for s in slots}) == 1
    near = near and max(s.end for s in slots) - slots[0].start <= options.max_registers
    blocks = place([slots] if near else [[s] for s in slots], {id(slot.tag): 0})
    return Plan(options=options, blocks=tuple(Block.of(options.unit, block) for block in blocks))
