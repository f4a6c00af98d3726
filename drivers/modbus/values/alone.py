"""What other functions than the four reads read: the request for it, and the value out of the answer. Pure.

Each is a request by itself. Where the answer holds registers they are decoded like all others, so every type, bit and
label works there too; the queue is a list, and server id and identity are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import Request
from drivers.modbus.values import address as addresses
from drivers.modbus.values.address import Address, Table
from drivers.modbus.values.decode import Decode, decode_registers
from drivers.modbus.values.kinds import Kind
from drivers.modbus.values.slots import Slot


def ask(unit: int, address: Address, count: int) -> Request:
    """The request that reads this address; `count` registers of it where it is a file."""
    match address.table:
        case addresses.STATUS:
            return requests.exception_status(unit)
        case addresses.DIAGNOSTIC:
            return requests.diagnostic(unit, address.number)
        case addresses.COUNTER:
            return requests.event_counter(unit)
        case addresses.SERVER:
            return requests.server_id(unit)
        case addresses.FILE:
            return requests.read_file(unit, address.file, address.number, count)
        case addresses.FIFO:
            return requests.read_fifo(unit, address.number)
    return requests.read_identity(unit, address.number)


def decode(slots: Sequence[Slot]) -> Decode:
    """The decoder of its answer, for slots that are all fed by it."""
    address = slots[0].address
    if (unwrap := _REGISTERS.get(address.table)) is not None:
        registers = decode_registers([slot.field for slot in slots], slots[0].count)
        return lambda payload: registers(unwrap(payload))
    readers = [_reader(slot) for slot in slots]
    return lambda payload: [_guarded(read, payload) for read in readers]


def _reader(slot: Slot) -> Callable[[bytes], Any]:
    """How a value that is not in registers is read. Raises ValueError where it is none."""
    address, field = slot.address, slot.field
    if address.table is addresses.FIFO:
        return lambda payload: _queue(payload, field.kind)
    if address.table is addresses.SERVER:
        return lambda payload: _printable(requests.server_id_of(payload))
    return lambda payload: _object(payload, address.number, field.encoding)


_REGISTERS: dict[Table, Callable[[bytes], bytes]] = {
    addresses.STATUS: lambda payload: b"\0" + payload,
    addresses.DIAGNOSTIC: lambda payload: payload,
    addresses.COUNTER: lambda payload: payload[2:],  # its status is about programming over the line [V1.1b3 6.9]
    addresses.FILE: lambda payload: payload,
}
"""The registers in the answer."""


def _guarded(read: Callable[[bytes], Any], payload: bytes) -> Any:
    try:
        return read(payload)
    except ValueError:
        return None


def _queue(payload: bytes, kind: Kind) -> list[Any]:
    data = requests.fifo_of(payload)
    return [kind.value_of(data[i : i + 2]) for i in range(0, len(data), 2)]


def _printable(data: bytes) -> str:
    """What of a server id people can read: how long the id is before the text differs from maker to maker."""
    return bytes(byte for byte in data if 0x20 <= byte < 0x7F).decode().strip()


def _object(payload: bytes, number: int, encoding: str) -> str:
    objects = requests.identity_of(payload).objects
    if number not in objects:  # a device begins at its first object when it does not know the one asked for
        raise ValueError(f"there is no object {number}")
    return objects[number].partition(b"\0")[0].decode(encoding).strip(" ")
