"""Golden folders: tests/cases/modbus/<what>/ holds a mapping, what goes over the wire, and what comes of it.

    mapping.yaml    a gateway file with one device
    wire.txt        `> PDU` is what must be asked next, `< PDU` what the device answers, `< silence`, `< hang up`
    expected.json   the steps: {"read": {tag: value or [value, quality]}}, {"write": {tag: value}}, either with "error"

Values are engineering values, scaled as the gateway does it. So a bug report becomes a folder and nothing else.
"""

import json
import struct
from pathlib import Path

import pytest

from drivers.modbus.driver import Driver
from drivers.stream import Memory
from gateway.acquisition.scaling import Scaling
from gateway.acquisition.unscaling import unscale
from gateway.config import load
from gateway.errors import FieldError
from gateway.model import GOOD

CASES = sorted(path.parent for path in (Path(__file__).parents[2] / "cases" / "modbus").glob("*/wire.txt"))


class Script:
    """A device that says what stands in the file, and minds that it is asked what stands there."""

    def __init__(self, text):
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        self.lines = [(line[0], line[1:].strip()) for line in lines if line]
        self.wrong = []
        self.endpoint = Memory(self._accept)

    def _accept(self, stream):
        self.stream = stream
        return self

    def on_lost(self, error):
        self.lost = error

    def on_data(self, data):
        while data:
            transaction, _, length, unit = struct.unpack_from(">HHHB", data)
            pdu, data = data[7 : 6 + length], data[6 + length :]
            side, wanted = self.lines.pop(0) if self.lines else (">", "nothing")
            if side != ">" or wanted == "nothing" or bytes.fromhex(wanted) != pdu:
                self.wrong.append(f"asked {pdu.hex(' ')}, the script says {side} {wanted}")
                return
            self._answer(transaction, unit)

    def _answer(self, transaction, unit):
        _, said = self.lines.pop(0)
        if said == "hang up":
            self.stream.close()
        elif said != "silence":
            pdu = bytes.fromhex(said)
            self.stream.write(struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu)


async def perform(driver, device, groups, step):
    """One step of the case. Returns the values read, by tag; `{}` for a write."""
    if "write" in step:
        ((name, value),) = step["write"].items()
        tag = next(tag for tag in device.tags if tag.name == name)
        driver.check_write(device, tag)
        await driver.write(device, tag, unscale(tag, value))
        return {}
    found = {}
    for group in groups:
        batch = await driver.read(group)
        values, quality = Scaling(group).apply(batch.values, batch.quality, batch.index)
        grades = quality if isinstance(quality, list) else [quality] * len(values)
        rows = zip(group.names, values, grades, strict=True)
        found |= {name: value if grade == GOOD else [value, str(grade)] for name, value, grade in rows}
    return found


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_a_case_of_the_field_comes_out_as_it_should(folder, run, clock, metrics):
    config = load(folder / "mapping.yaml")
    (device,) = config.devices
    script = Script((folder / "wire.txt").read_text())

    async def main():
        driver = Driver([device], clock=clock, metrics=metrics, endpoint=script.endpoint)
        async with driver:
            for number, step in enumerate(json.loads((folder / "expected.json").read_text()), 1):
                if "error" in step:
                    with pytest.raises((FieldError, ValueError)) as caught:
                        await perform(driver, device, config.groups[device.name], step)
                    assert step["error"] in str(caught.value), number
                else:
                    assert await perform(driver, device, config.groups[device.name], step) == step.get("read", {}), (
                        number
                    )
                assert not script.wrong, number
        assert not script.lines

    run(main())


def test_there_are_cases():
    assert len(CASES) >= 6
