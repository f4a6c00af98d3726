"""The simulated devices: what they declare can be read, moves, and leaves nothing behind."""

import asyncio
import logging
import socket
import subprocess
import sys
import time

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag


def built(section):
    devices = []
    for name, entry in section.items():
        own = {k: v for k, v in entry.items() if k in DeviceOptions.model_fields}
        tags = tuple(
            Tag(name=n, address=t["address"], type=t.get("type", ""), order=t.get("order", ""))
            for n, t in entry["tags"].items()
        )
        devices.append(
            Device(name=name, driver=entry["driver"], url=entry["url"], options=DeviceOptions(**own), tags=tags)
        )
    return devices


def test_every_tag_of_the_simulated_devices_can_be_read_and_values_move():
    async def main():
        seen = {}
        async with Driver.simulate() as section:
            devices = built(section)
            assert len(devices) >= 2
            assert len({Driver.line_key(d.url, d.options) for d in devices}) == 1
            async with Driver(devices, clock=SystemClock(), metrics=Metrics()) as driver:
                groups = [g for d in devices for g in Driver.compile(d, d.tags)]
                async with asyncio.timeout(10):
                    while sum(len(values) > 1 for values in seen.values()) < 7:
                        for group in groups:
                            batch = await driver.read(group)
                            assert batch.quality == GOOD
                            for name, value in zip(group.names, batch.values, strict=True):
                                seen.setdefault((group.device, name), set()).add(value)
                        await asyncio.sleep(0.05)
        return seen

    seen = asyncio.run(main())
    assert all(10 < value < 14 for value in seen["boiler", "flow"])
    assert all(228 < value < 232 for value in seen["meter", "voltage"])
    assert len(seen["meter", "energy"]) > 1
    assert min(seen["boiler", "energy"]) >= 4_200_000  # low word first


def test_leaving_the_simulation_leaves_no_task_no_port_and_no_word(caplog):
    async def main():
        async with Driver.simulate() as section:
            port = int(section["boiler"]["url"].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "pymodbus.logging"):
        asyncio.run(main())
        assert logging.getLogger("pymodbus.logging").level == logging.DEBUG
    assert not [r for r in caplog.records if "modbus" in r.name]


def test_the_setpoint_can_be_written_and_the_temperature_follows_it():
    async def main():
        async with Driver.simulate() as section:
            boiler = next(device for device in built(section) if device.name == "boiler")
            tags = {tag.name: tag for tag in boiler.tags}
            async with Driver([boiler], clock=SystemClock(), metrics=Metrics()) as driver:
                await driver.write(boiler, tags["setpoint"], 300)
                return await driver.read_tag(boiler, tags["setpoint"]), await driver.read_tag(
                    boiler, tags["temperature"]
                )

    setpoint, temperature = asyncio.run(main())
    assert setpoint == 300
    assert 280 <= temperature <= 320


def test_two_simulations_at_once_do_not_meet():
    async def main():
        async with Driver.simulate() as one, Driver.simulate() as other:
            assert one["boiler"]["url"] != other["boiler"]["url"]

    asyncio.run(main())


def test_the_simulation_starts_within_a_second_and_reading_never_imports_pymodbus():
    script = (
        "import asyncio, sys\n"
        "from drivers.modbus.driver import Driver\n"
        "assert not [m for m in sys.modules if m.startswith('pymodbus')]\n"
        "async def main():\n"
        "    async with Driver.simulate() as section: print(len(section))\n"
        "asyncio.run(main())\n"
    )
    before = time.process_time_ns(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "2", done.stderr
    assert time.monotonic() - before[1] < 5  # 0.3 s here; a loaded machine is no failure
