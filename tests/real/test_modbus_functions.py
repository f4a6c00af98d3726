"""The rarer functions against pymodbus' server, another reading of the standard: over TCP and as RTU frames."""

import asyncio

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions, TagOptions
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag


def tag(address, kind="", **options):
    own = {key: getattr(TagOptions(**options), key) for key in TagOptions.model_fields}
    return Tag(name=address, address=address, type=kind, options=own)


READ = [
    tag("holding:0"),
    tag("status"),
    tag("diagnostic:11"),
    tag("counter"),
    tag("server"),
    tag("file:4:7", "string", length=20),
    tag("fifo:10"),
    tag("identity:vendor"),
    tag("identity:product"),
    tag("identity:version"),
    tag("identity:model"),
]


@pytest.mark.parametrize("scheme", ["tcp", "rtu+tcp"])
def test_what_other_functions_read_is_what_pymodbus_says(scheme):
    from pymodbus import FramerType, ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    identity = ModbusDeviceIdentification(
        info_name={
            "VendorName": "ACME",
            "ProductCode": "P-7",
            "MajorMinorRevision": "1.2.3",
            "ModelName": "Pump",
        }
    )

    async def main():
        server = ModbusTcpServer(
            [SimDevice(1, simdata=[SimData(0, values=[7] * 20, datatype=DataType.UINT16)])],
            framer=FramerType.SOCKET if scheme == "tcp" else FramerType.RTU,
            identity=identity,
            address=("127.0.0.1", 0),
        )
        await server.serve_forever(background=True)
        listener = server.transport
        url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        mine = Device(name="d", driver="modbus", url=url, options=DeviceOptions(timeout="5s"))
        try:
            async with Driver([mine], clock=SystemClock(), metrics=Metrics()) as driver:
                (group,) = Driver.compile(mine, READ)
                batch = await driver.read(group)
                await driver.write(mine, tag("holding:3", "uint32", write_function="read_write"), 70000)
                assert await driver.read_tag(mine, tag("holding:3", "uint32")) == 70000
                await driver.write(mine, tag("holding:5.4-7"), 9)
                assert await driver.read_tag(mine, tag("holding:5")) == 0x97
        finally:
            await server.shutdown()
            await listener.wait_closed()
        return dict(zip(group.names, batch.values, strict=True)), batch.quality

    values, quality = asyncio.run(main())
    assert quality == GOOD, (values, quality)
    assert isinstance(values.pop("status"), int)
    assert isinstance(values.pop("diagnostic:11"), int)
    assert isinstance(values.pop("counter"), int)
    assert values == {
        "holding:0": 7,
        "server": "ACME-P-7-1.2.3",
        "file:4:7": "SERVER DUMMY RECORD.",
        "fifo:10": [0, 1, 2, 3],
        "identity:vendor": "ACME",
        "identity:product": "P-7",
        "identity:version": "1.2.3",
        "identity:model": "Pump",
    }
