"""One dead unit among ten on a real serial line: what the nine healthy ones lose by it.

The line and its units are simulated in a process of their own (tests/line/line.py), true to the character; on our side
runs what the gateway runs: the line's task, the Modbus driver, the bus and the port.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

UNITS = range(1, 11)
DEAD = 7
EVERY_S = 1.0
WELL_S, DEAD_S, AGAIN_S = 10.0, 40.0, 32.0


class Plant:
    """Ten units with 20 registers each, read each second: about six tenths of a line of 9,600 baud."""

    def __init__(self, url, timeout_s):
        self.metrics = Metrics()
        self.read_at = {unit: [] for unit in UNITS}
        rows = []
        for unit in UNITS:
            options = DeviceOptions(unit=unit, timeout=f"{timeout_s * 1000:g}ms")
            device = Device(name=f"u{unit}", driver="modbus", url=url, options=options)
            tags = [Tag(name=f"t{n}", address=f"holding:{n}", every_s=EVERY_S) for n in range(20)]
            rows.append((device, Driver.compile(device, tags)))
        self.line = Line(
            url, Driver, rows, sink=self.note, image=Image(), on_state=lambda _: None, clock=SystemClock(),
            metrics=self.metrics,
        )  # fmt: skip

    def note(self, batch):
        if batch.quality is GOOD:
            self.read_at[int(batch.group.device[1:])].append(asyncio.get_running_loop().time())

    def metric(self, name, **labels):
        return sum(v for n, has, v in self.metrics if n == name and labels.items() <= has.items())

    def missed(self):
        return {unit: self.metric("device_missed_polls_total", device=f"u{unit}") for unit in UNITS if unit != DEAD}

    def longest(self, first, last):
        """The longest time between two polls of any healthy unit within that span."""
        spans = [[t for t in self.read_at[u] if first <= t < last] for u in UNITS if u != DEAD]
        return max(b - a for times in spans for a, b in pairwise(times))


async def scenario(line, plant):
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(plant.line.run())
    await asyncio.sleep(3)
    started, before = loop.time(), plant.missed()
    await asyncio.sleep(WELL_S)
    line.tell(unit=DEAD, dead=True)
    died = loop.time()
    await asyncio.sleep(DEAD_S)
    sick = plant.line.status().sick
    line.tell(unit=DEAD, dead=False)
    revived = loop.time()
    await asyncio.sleep(AGAIN_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    after = plant.missed()
    return {
        "longest_well_s": plant.longest(started, died),
        "longest_dead_s": plant.longest(died, revived),
        "polls_dead": min(
            sum(died <= t < revived for t in times) for unit, times in plant.read_at.items() if unit != DEAD
        ),
        "missed": max(after[unit] - before[unit] for unit in after),
        "attempts": plant.metric("device_failures_total", device=f"u{DEAD}"),
        "sick_share": sick,
        "found_after_s": min((t for t in plant.read_at[DEAD] if t > revived), default=revived + 1e9) - revived,
    }


@pytest.mark.parametrize("timeout_s", [0.3, 1.0], ids=["timeout 300ms", "timeout 1s"])
def test_one_dead_unit_among_ten_and_the_healthy_nine_keep_their_period(simulated_line, record_property, timeout_s):
    line = simulated_line(baud=9600, units={unit: {"turnaround_ms": 5} for unit in UNITS})
    plant = Plant(f"rtu://{line.link}?baud=9600", timeout_s)
    found = asyncio.run(scenario(line, plant))
    print(f"\ntimeout {timeout_s:g} s: {found}")
    for name, value in found.items():
        record_property(name, value)
    # 300 ms fit in beside the nine, so nothing is missed; a timeout of a whole period costs each the one poll under it.
    allowed = 0 if timeout_s < EVERY_S / 2 else found["attempts"]
    assert found["missed"] <= allowed
    assert found["polls_dead"] >= DEAD_S / EVERY_S - 1 - allowed
    assert found["longest_dead_s"] <= EVERY_S + timeout_s + 0.7
    assert found["sick_share"] <= 0.1
    assert found["found_after_s"] <= 31
