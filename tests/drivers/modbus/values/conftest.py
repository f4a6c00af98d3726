"""A device that obeys whatever is asked of its registers and coils, over a memory stream, and writes down every PDU."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions, TagOptions
from drivers.stream import Memory
from gateway.model import GOOD, Device, Tag


class Plc:
    """Registers and bits by address. `refused` are exception codes by function, `silent` functions get no answer.

    `special` are answers, as PDUs, to certain requests; None hangs up. `holes` are registers that are not there.
    """

    def __init__(self):
        self.asked = []
        self.holding = {}
        self.input = {}
        self.coils = {}
        self.refused = {}
        self.silent = set()
        self.holes = set()
        self.special = {}
        self.opened = 0
        self.endpoint = Memory(self._accept)

    def _accept(self, stream):
        self.opened += 1
        self.stream = stream
        return self

    def on_lost(self, error):
        self.lost = error

    def on_data(self, data):
        while data:
            transaction, _, length, unit = struct.unpack_from(">HHHB", data)
            pdu, data = data[7 : 6 + length], data[6 + length :]
            self.asked.append(pdu)
            if pdu[0] in self.silent:
                continue
            answer = self.answer(pdu)
            if answer is None:
                self.stream.close()
                return
            self.stream.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)

    def answer(self, pdu):  # noqa: C901 - a table of functions
        function = pdu[0]
        if function in self.refused:
            return bytes((function | 0x80, self.refused[function]))
        if pdu in self.special:
            return self.special[pdu]
        first, second = struct.unpack_from(">HH", pdu, 1)
        match function:
            case 1 | 2:
                bits = sum(self.coils.get(first + i, False) << i for i in range(second))
                body = bits.to_bytes((second + 7) // 8, "little")
                return bytes((function, len(body))) + body
            case 3 | 4:
                if self.holes & set(range(first, first + second)):
                    return bytes((function | 0x80, 2))
                return bytes((function, second * 2)) + self.registers(function, first, second)
            case 5:
                self.coils[first] = second == 0xFF00
                return pdu
            case 6:
                self.holding[first] = second
                return pdu
            case 15:
                bits = int.from_bytes(pdu[6:], "little")
                self.coils.update({first + i: bool(bits >> i & 1) for i in range(second)})
                return pdu[:5]
            case 16:
                self.store(first, pdu[6:])
                return pdu[:5]
            case 22:
                conjunct, disjunct = struct.unpack_from(">HH", pdu, 3)
                self.holding[first] = self.holding.get(first, 0) & conjunct | disjunct & ~conjunct & 0xFFFF
                return pdu
            case 23:
                written, _ = struct.unpack_from(">HH", pdu, 5)
                self.store(written, pdu[10:])
                return bytes((23, second * 2)) + self.registers(3, first, second)
        raise AssertionError(f"no answer to {pdu.hex(' ')}")

    def registers(self, function, first, count):
        table = self.holding if function == 3 else self.input
        return b"".join(table.get(first + i, 0).to_bytes(2) for i in range(count))

    def store(self, first, data):
        for i in range(0, len(data), 2):
            self.holding[first + i // 2] = int.from_bytes(data[i : i + 2])

    @property
    def functions(self):
        return [pdu[0] for pdu in self.asked]


@pytest.fixture
def plc():
    return Plc()


def device(**options):
    url = options.pop("url", "tcp://host")
    return Device(name="boiler", driver="modbus", url=url, options=DeviceOptions(**options))


def tag(address, *, name="", type="", order="", every_s=1.0, scale=1.0, **options):  # noqa: A002 - the file's word
    """A tag with the driver's own keys checked as the loader does it."""
    checked = TagOptions(**options)
    own = {key: getattr(checked, key) for key in TagOptions.model_fields}
    return Tag(name=name or address, address=address, type=type, order=order, every_s=every_s, scale=scale, options=own)


def told(batch):
    """{tag: value}, or (value, quality) where it is not good."""
    quality = batch.quality if isinstance(batch.quality, list) else [batch.quality] * len(batch.values)
    rows = zip(batch.group.names, batch.values, quality, strict=True)
    return {name: value if grade == GOOD else (value, str(grade)) for name, value, grade in rows}


@pytest.fixture
def make():
    """What tests of values and writes need to make: `device(…)`, `tag(…)`, `told(batch)`."""
    return SimpleNamespace(device=device, tag=tag, told=told)


@pytest.fixture
def session(run, plc, clock, metrics):
    """Run `script(driver)` on a driver that is connected to the device."""

    def runner(script, mine):
        async def main():
            driver = Driver([mine], clock=clock, metrics=metrics, endpoint=plc.endpoint)
            async with driver:
                return await script(driver)

        return run(main())

    return runner
