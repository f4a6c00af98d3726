"""How much of a serial line is used: what its characters, silences and turnarounds allow, over what they took.

The line and its unit are simulated in a process of their own (tests/line/line.py), true to the character; on our side
is everything that runs in the gateway: driver, bus, framer, serial port.
"""

from __future__ import annotations

import asyncio

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.lines.pace import Pace
from drivers.modbus.lines.url import route_of
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.budget import charges
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag

pytestmark = pytest.mark.bench

TURNAROUND_MS = 3.0


def device(url, unit=1, **options):
    return Device(name=f"unit{unit}", driver="modbus", url=url, options=DeviceOptions(unit=unit, **options))


def registers(first, count, **keys):
    return [Tag(name=f"t{n}", address=f"holding:{n}", **keys) for n in range(first, first + count)]


async def poll(url, count, seconds, tell):
    """Read `count` registers of unit 1 again and again; the line's report, and how long our side computed."""
    one = device(url)
    (group,) = Driver.compile(one, registers(100, count))
    loop = asyncio.get_running_loop()
    async with Driver([one], clock=SystemClock(), metrics=Metrics()) as driver:
        for _ in range(20):  # echo and turnaround are learned
            await driver.read(group)
        tell(reset=True)
        end = loop.time() + seconds
        while loop.time() < end:
            batch = await driver.read(group)
            assert batch.quality is GOOD
            assert batch.values[-1] == 1000 + 100 + count - 1
    return tell()


@pytest.mark.parametrize(
    ("baud", "count", "least"),
    [
        pytest.param(9600, 1, 0.95, id="9600 baud, 1 register"),
        pytest.param(9600, 20, 0.95, id="9600 baud, 20 registers"),
        pytest.param(9600, 125, 0.95, id="9600 baud, 125 registers"),
        pytest.param(115200, 10, 0.85, id="115200 baud, 10 registers"),
        pytest.param(115200, 60, 0.95, id="115200 baud, 60 registers"),
        pytest.param(115200, 125, 0.95, id="115200 baud, 125 registers"),
    ],
)
def test_how_much_of_an_rtu_line_is_used(simulated_line, record_property, baud, count, least):
    line = simulated_line(baud=baud, units={1: {"turnaround_ms": TURNAROUND_MS}})
    report = asyncio.run(poll(f"rtu://{line.link}?baud={baud}", count, 5.0 if baud > 9600 else 8.0, line.tell))
    used = report["utilisation"]
    lost_ms = (report["elapsed_s"] - report["allowed_s"]) / report["answered"] * 1000
    reads = report["answered"]
    print(f"\n{baud} baud, {count} registers: {used:.1%} used, {lost_ms:.2f} ms lost a request, {reads} reads")
    record_property("utilisation", used)
    assert (report["early"], report["damaged"], report["unanswered"]) == (0, 0, 0)
    assert used >= least


def test_how_much_of_an_ascii_line_is_used(simulated_line, record_property):
    line = simulated_line(framing="ascii", baud=19200, bits=7, units={1: {"turnaround_ms": TURNAROUND_MS}})
    report = asyncio.run(poll(f"ascii://{line.link}?baud=19200", 20, 5.0, line.tell))
    print(f"\nASCII, 19200 baud, 20 registers: {report['utilisation']:.1%} used")
    record_property("utilisation", report["utilisation"])
    assert report["utilisation"] >= 0.95


def test_the_budget_foretells_how_busy_a_line_is(simulated_line, record_property):
    """Three units, polled by the gateway's own line task at different intervals, for ten seconds."""
    units = {1: {"turnaround_ms": 5}, 2: {"turnaround_ms": 12}, 3: {"turnaround_ms": 25}}
    line = simulated_line(baud=19200, units=units)
    url = f"rtu://{line.link}?baud=19200"
    plant = [
        (device(url, 1), [*registers(0, 30, every_s=0.2), *registers(200, 4, every_s=1.0)]),
        (device(url, 2), registers(0, 10, every_s=0.25)),
        (device(url, 3), [*registers(0, 2, every_s=0.5), *registers(30, 60, every_s=1.0)]),
    ]
    groups = [(one, Driver.compile(one, tags)) for one, tags in plant]

    async def main():
        task = Line(
            url, Driver, groups, sink=lambda _: None, image=Image(), on_state=lambda _: None, clock=SystemClock(),
            metrics=Metrics(),
        )  # fmt: skip
        running = asyncio.create_task(task.run())
        await asyncio.sleep(2)
        line.tell(reset=True)
        await asyncio.sleep(10)
        report = line.tell()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return report

    report = asyncio.run(main())
    turnaround_s = {unit: of["turnaround_ms"] / 1000 for unit, of in units.items()}
    every = charges([group for _, of in groups for group in of], Pace.of(route_of(url)), turnaround_s)
    foretold = sum(charge.share for charge in every)
    print(f"\nforetold {foretold:.1%} busy, measured {report['busy']:.1%}")
    record_property("foretold", round(foretold, 4))
    record_property("measured", report["busy"])
    assert report["early"] == report["damaged"] == report["unanswered"] == 0
    assert report["busy"] == pytest.approx(foretold, rel=0.03)
