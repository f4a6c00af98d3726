"""A device of any profile: a file that names it, the registers it holds, and what becomes of them on their way out."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from drivers.stream import Memory
from gateway.acquisition.scaling import Scaling
from gateway.config import load
from gateway.driver import find
from gateway.metrics import Metrics
from gateway.model import Quality

TABLES = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
UNSET = 0xA5A5
"""What registers hold that the case does not name: a wrong address is noticed."""


class Holder:
    """Answers reads from `registers` {table: {address: word}} and `bits` {table: addresses that are on}."""

    def __init__(self, registers, bits):
        self._registers, self._bits = registers, bits
        self.endpoint = Memory(self._accept)

    def _accept(self, stream):
        self._stream = stream
        return self

    def on_lost(self, error):
        pass

    def on_data(self, data):
        while data:
            transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", data[:12])
            table, span, data = TABLES[function], range(address, address + count), data[12:]
            if function <= 2:
                on = self._bits.get(table, ())
                body = sum((at in on) << i for i, at in enumerate(span)).to_bytes((count + 7) // 8, "little")
            else:
                body = b"".join(self._registers.get(table, {}).get(at, UNSET).to_bytes(2) for at in span)
            answer = bytes((function, len(body))) + body
            self._stream.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)


def words_of(case):
    """{table: {address: word}} of a case's registers; each address names the first of several words."""
    tables = {}
    for table, entries in case.get("registers", {}).items():
        into = tables.setdefault(table, {})
        for first, text in entries.items():
            for at, word in enumerate(text.split(), first):
                assert into.setdefault(at, int(word, 16)) == int(word, 16), f"{table}:{at} is given twice"
    return tables


async def _read(config, case, clock):
    (device,) = config.devices
    holder = Holder(words_of(case), case.get("bits", {}))
    driver = find(device.driver)([device], clock=clock, metrics=Metrics(), endpoint=holder.endpoint)
    values, qualities = {}, {}
    async with driver:
        for group in config.groups[device.name]:
            batch = await driver.read(group)
            out, quality = Scaling(group).apply(batch.values, batch.quality, None)
            grades = [quality] * len(group.names) if isinstance(quality, Quality) else quality
            values |= dict(zip(group.names, out, strict=True))
            qualities |= dict(zip(group.names, grades, strict=True))
    return SimpleNamespace(values=values, qualities=qualities)


@pytest.fixture
def with_profile(tmp_path):
    """`with_profile(name)` gives the checked configuration of a gateway with one device of that profile."""

    def read(name):
        path = tmp_path / "gw.yaml"
        path.write_text(
            "gateway: g\n"
            "uplinks: {local: {url: mqtt://192.0.2.2, commands: true}}\n"
            f"devices: {{d: {{driver: modbus, url: tcp://192.0.2.1, profile: {name}}}}}\n"
        )
        return load(path)

    return read


@pytest.fixture
def read_case(run_virtual, virtual_clock):
    """`read_case(config, case)` reads the device once, all groups, and gives what would be sent."""

    def read(config, case):
        return run_virtual(_read(config, case, virtual_clock))

    return read
