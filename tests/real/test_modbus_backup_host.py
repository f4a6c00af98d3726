"""A device with two hosts: the backup is used while the first is down, and left without an outage when it is back."""

import asyncio
import logging
import sys
from pathlib import Path

from drivers.modbus.driver import Driver
from drivers.modbus.lines import backup
from drivers.modbus.options import DeviceOptions
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import Device, Tag

SERVERS = str(Path(__file__).with_name("modbus_servers.py"))


def test_a_line_lives_on_its_backup_host_and_goes_back(
    libmodbus, start, free_port, wait_for, listening, caplog, monkeypatch
):
    monkeypatch.setattr(backup, "RETRY_S", 0.2)
    caplog.set_level(logging.INFO)
    port, second = free_port(), libmodbus()
    second.tell("set holding 1 7777")
    device = Device(
        name="plc", driver="modbus", url=f"tcp://127.0.0.1:{port}",
        options=DeviceOptions(backup=f"tcp://127.0.0.1:{second.port}"),
    )  # fmt: skip
    groups = Driver.compile(device, [Tag(name="a", address="holding:1", every_s=0.02)])
    states, values, news = [], [], asyncio.Event()

    def take(batch):
        values.append(batch.values[0])
        news.set()

    async def until(value):
        async with asyncio.timeout(40):
            while values[-1:] != [value]:
                news.clear()
                await news.wait()

    async def main():
        line = Line(
            "plc", Driver, [(device, groups)], sink=take, image=Image(), on_state=states.append,
            clock=SystemClock(), metrics=Metrics(),
        )  # fmt: skip
        polling = asyncio.create_task(line.run())
        await until(0x7777)
        first = start(sys.executable, SERVERS, "pyModbusTCP", str(port), name="first")
        await until(257)
        assert [state.online for state in states] == [True]
        assert set(values) == {0x7777, 257}
        first.kill()
        await until(0x7777)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.modbus"]
    first, other = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{second.port}"
    assert [text.partition(" (")[0] for text in said] == [
        f"{first} is out of reach",
        f"{first} can be reached again: its backup {other} is left",
        f"{first} is out of reach",
    ]
    assert all(f"its backup {other} is used" in said[i] for i in (0, 2))
