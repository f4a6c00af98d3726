"""What a Modbus TCP request of 125 registers costs, decoded, beside pymodbus' client in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

SOURCE = Path(__file__).with_name("modbus_load.c")
IN_FLIGHT = 16
REGISTERS = 125
ROUNDS = 5
READS = 150
"""Of sixteen requests each."""
MOST = 0.25
"""Of the CPU time of pymodbus."""


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A server in C, in a process of its own, that takes every client the same."""
    program = tmp_path_factory.mktemp("load") / "modbus_load"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.stdin.close()


@contextlib.asynccontextmanager
async def ours(port):
    """A read is all groups of a device at once: all its registers as tags, decoded, with quality."""
    from drivers.modbus.driver import Driver
    from drivers.modbus.options import DeviceOptions
    from gateway.clock import SystemClock
    from gateway.metrics import Metrics
    from gateway.model import GOOD, Device, Tag

    options = DeviceOptions(max_in_flight=IN_FLIGHT)
    device = Device(name="d", driver="modbus", url=f"tcp://127.0.0.1:{port}", options=options)
    groups = Driver.compile(device, [Tag(name=f"t{i}", address=f"holding:{i}") for i in range(IN_FLIGHT * REGISTERS)])
    async with Driver([device], clock=SystemClock(), metrics=Metrics()) as driver:

        async def read():
            batches = await asyncio.gather(*map(driver.read, groups))
            assert all(batch.quality == GOOD for batch in batches)
            return [value for batch in batches for value in batch.values]

        yield read


@contextlib.asynccontextmanager
async def pymodbus(port):
    """A read is sixteen requests at once; its client sends them one after the other."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()

    async def read():
        asked = [
            client.read_holding_registers(at, count=REGISTERS, device_id=1)
            for at in range(0, IN_FLIGHT * REGISTERS, REGISTERS)
        ]
        return [value for answer in await asyncio.gather(*asked) for value in answer.registers]

    yield read
    client.close()


async def cost(client, port):
    """CPU time per request in us."""
    async with client(port) as read:
        assert await read() == list(range(IN_FLIGHT * REGISTERS))
        started = time.process_time()
        for _ in range(READS):
            await read()
        return (time.process_time() - started) / (READS * IN_FLIGHT) * 1e6


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_request_costs_a_quarter_of_what_pymodbus_takes(port, capsys, loop):
    factory = None if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    found = {ours: [], pymodbus: []}
    for _ in range(ROUNDS):
        for client, costs in found.items():
            with asyncio.Runner(loop_factory=factory) as runner:
                costs.append(runner.run(cost(client, port)))
    mine, theirs = (min(costs) for costs in found.values())
    with capsys.disabled():
        print(
            f"\n{loop}: {REGISTERS} registers decoded, {IN_FLIGHT} in flight: {mine:.1f} us of CPU a request; "
            f"pymodbus {theirs:.1f} us; ratio {mine / theirs:.3f}"
        )
    assert mine <= MOST * theirs
