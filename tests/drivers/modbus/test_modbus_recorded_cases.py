"""Bug reports as tests: each folder below tests/cases/modbus with a recording.txt is replayed against the driver.

`device.yaml` holds the device as it stands in a gateway file, without its url. `expected.yaml` holds a list: what each
round of polling gives, by tag: a value, or its quality where that is not good, or for all of them one cause.
"""

from pathlib import Path

import pytest
import yaml

from drivers.modbus.driver import Driver
from drivers.modbus.tools.replaying import Player, acceptor, framing_of, takes_of
from drivers.recording import parse
from drivers.stream import Memory
from gateway.config import from_mapping
from gateway.driver import Replay
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.model import GOOD

CASES = Path(__file__).parents[2] / "cases" / "modbus"
FOLDERS = sorted(path.parent for path in CASES.glob("*/recording.txt"))
URLS = {"tcp": "tcp://h:1", "rtu": "rtu+tcp://h:1?baud={baud}", "ascii": "ascii+tcp://h:1?baud={baud}"}


def endpoint(recording):
    """What the line heard then, byte for byte and at the same moments."""
    framing = framing_of(recording)
    return Memory(
        acceptor(
            Player(takes_of(recording)), framing, recorded=framing, speed=1, replay=Replay(""), tell=lambda _: None
        )
    )


async def polled(folder, clock):
    recording = parse((folder / "recording.txt").read_text(encoding="ascii"))
    expected = yaml.safe_load((folder / "expected.yaml").read_text())
    section = yaml.safe_load((folder / "device.yaml").read_text())
    section["url"] = URLS[framing_of(recording)].format(baud=section.pop("baud", 9600))
    file = {"gateway": "case", "devices": {"it": {"driver": "modbus", **section}}}
    config = from_mapping(file, base=folder)
    driver = Driver(config.devices, clock=clock, metrics=Metrics(), endpoint=endpoint(recording))
    async with driver:
        return expected, [await one_round(driver, config.groups["it"]) for _ in expected]


async def one_round(driver, groups):
    found = {}
    for group in groups:
        try:
            batch = await driver.read(group)
        except DeviceError as error:
            return error.cause
        qualities = [batch.quality] * len(batch.values) if isinstance(batch.quality, str) else batch.quality
        for name, value, quality in zip(group.names, batch.values, qualities, strict=True):
            found[name] = value if quality == GOOD else str(quality)
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_recorded_case_reads_as_it_should(run, clock, folder):
    expected, found = run(polled(folder, clock))
    assert found == expected


def test_there_are_recorded_cases():
    assert FOLDERS
