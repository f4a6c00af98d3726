"""Two simulated Modbus devices on loopback, for demo, bench and tests: a boiler and an electricity meter, unit 1 and 2.

Their values are functions of time, worked out when somebody reads: there is no task to stop. The only file that imports
pymodbus, and only when it is called.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import sin
from typing import Any

HOST = "127.0.0.1"

_COILS = 16
_SETPOINT = 650
_SETPOINT_AT = 7
_METER_REGISTERS = 12


@asynccontextmanager
async def simulate() -> AsyncIterator[dict[str, Any]]:
    """Run both devices on one free port; gives the `devices` section of a gateway file that reads them."""
    from pymodbus.server import ModbusTcpServer  # noqa: PLC0415 - see above

    logger = logging.getLogger("pymodbus.logging")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # a client that leaves is no news to us
    started = time.monotonic()
    server: Any = ModbusTcpServer([_boiler(started), _meter(started)], address=(HOST, 0))
    try:
        await server.serve_forever(background=True)
        listener = server.transport
        try:
            yield _devices(listener.sockets[0].getsockname()[1])
        finally:
            await server.shutdown()
            await listener.wait_closed()
            await asyncio.sleep(0)  # the connections it closed end in the next turn of the loop
    finally:
        logger.setLevel(level)


def _devices(port: int) -> dict[str, Any]:
    """What a gateway file says of them."""
    here = {"driver": "modbus", "url": f"tcp://{HOST}:{port}", "every": "1s"}
    return {
        "boiler": {
            **here,
            "unit": 1,
            "tags": {
                "flow": {"address": "holding:100", "type": "float32", "unit": "m3/h", "decimals": 2},
                "temperature": {"address": "holding:102", "type": "int16", "scale": 0.1, "unit": "°C"},
                "level": {"address": "holding:103", "type": "uint16", "scale": 0.1, "unit": "%"},
                "energy": {"address": "holding:104", "type": "uint32", "order": "CDAB", "scale": 0.001, "unit": "kWh"},
                "alarm": {"address": "holding:106.3"},
                "setpoint": {
                    "address": "holding:107",
                    "type": "int16",
                    "scale": 0.1,
                    "unit": "°C",
                    "write": {"min": 20, "max": 90},
                },
                "pump": {"address": "coil:5"},
                "burner": {"address": "coil:6"},
            },
        },
        "meter": {
            **here,
            "unit": 2,
            "tags": {
                "voltage": {"address": "input:0", "type": "float32", "unit": "V", "decimals": 1},
                "current": {"address": "input:2", "type": "float32", "unit": "A", "decimals": 3},
                "power": {"address": "input:4", "type": "float32", "unit": "W", "decimals": 1},
                "frequency": {"address": "input:6", "type": "float32", "unit": "Hz", "decimals": 3},
                "energy": {"address": "input:8", "type": "uint64", "scale": 0.001, "unit": "kWh"},
            },
        },
    }


def _boiler(started: float) -> Any:
    """Unit 1: holding registers 100 to 107, coils 0 to 15. Register 107 is the setpoint, which can be written."""

    def registers(held: Sequence[int]) -> bytes:
        t = time.monotonic() - started
        flow = 12 + 3 * sin(t / 7)
        energy = round(4_200_000 + 95 * t)
        alarm = 0b1000 if t % 60 > 50 else 0
        words = struct.pack(">HHH", energy & 0xFFFF, energy >> 16, alarm)  # order CDAB: the low word first
        temperature = round(held[_SETPOINT_AT] + 20 * sin(t / 31))
        return struct.pack(">fhH", flow, temperature, round(500 + 300 * sin(t / 53))) + words

    def coils(_held: Sequence[int]) -> bytes:
        t = time.monotonic() - started
        return struct.pack(">H", (t % 20 > 4) << 5 | (t % 6 > 3) << 6)

    return _device(1, holding=(100, [0, 0, 0, 0, 0, 0, 0, _SETPOINT], registers), coils=(0, [0] * _COILS, coils))


def _meter(started: float) -> Any:
    """Unit 2: input registers 0 to 11."""

    def registers(_held: Sequence[int]) -> bytes:
        t = time.monotonic() - started
        voltage, current = 230 + 2 * sin(t / 11), 6 + 2 * sin(t / 5)
        floats = (voltage, current, voltage * current, 50 + 0.02 * sin(t / 3))
        return struct.pack(">4fQ", *floats, round(87_654_321 + 1500 * t))

    return _device(2, inputs=(0, [0] * _METER_REGISTERS, registers))


_Area = tuple[int, list[int], Callable[[Sequence[int]], bytes]]
"""First address, what they hold at first, and what the first of them hold now, given what they held before.

Big-endian registers; coils as registers of 16. What is not renewed keeps what was written to it."""


def _device(unit: int, **areas: _Area) -> Any:
    """A device of pymodbus' simulator whose registers are renewed before each read."""
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415 - see above

    by_function = {1: areas.get("coils"), 3: areas.get("holding"), 4: areas.get("inputs")}

    async def renew(function: int, _first: int, _address: int, _count: int, registers: list[int], _set: Any) -> None:
        area = by_function.get(function)
        if area is not None:
            content = area[2](registers)
            fresh = struct.unpack(f">{len(content) // 2}H", content)
            registers[: len(fresh)] = fresh

    def block(name: str) -> list[SimData]:
        first, held, _ = areas.get(name, (0, [0] * 16, bytes))
        if name in ("coils", "discretes"):
            return [SimData(first, values=[bool(bit) for bit in held], datatype=DataType.BITS)]
        return [SimData(first, values=held, datatype=DataType.REGISTERS)]

    blocks = (block("coils"), block("discretes"), block("holding"), block("inputs"))
    return SimDevice(id=unit, simdata=blocks, action=renew)
