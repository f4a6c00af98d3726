"""Devices for the tools, each as a program that runs until killed: `tool_devices.py identity PORT | picky LINK BAUD`.

`identity`: a pymodbus server with a device identification, units 1 and 5, silent for all others.
`picky`: a pseudo terminal that understands one baud rate and nothing else; unit 3.
"""

import asyncio
import os
import pathlib
import select
import sys
import termios
import tty


def identity(port):
    from pymodbus import ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    info = ModbusDeviceIdentification(
        info_name={
            "VendorName": "Waterworks",
            "ProductCode": "WW-7",
            "MajorMinorRevision": "2.4",
            "ProductName": "Pump control",
            "ModelName": "Seven",
        }
    )
    blocks = [SimData(0, values=[100 + i for i in range(64)], datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    devices = [SimDevice(unit, simdata=(bits, bits, blocks, blocks)) for unit in (1, 5)]

    async def serve():
        server = ModbusTcpServer(devices, identity=info, address=("127.0.0.1", int(port)), ignore_missing_devices=True)
        await server.serve_forever()

    asyncio.run(serve())


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


def picky(link, baud):
    """The kernel keeps the baud rate of a pseudo terminal, but not its parity."""
    speed = getattr(termios, f"B{baud}")
    master, slave = os.openpty()
    tty.setraw(slave)
    pathlib.Path(link).symlink_to(os.ttyname(slave))
    heard = b""
    while True:
        ready, _, _ = select.select([master], [], [], 0.02)
        if not ready:
            heard = b""
            continue
        heard += os.read(master, 4096)
        settings = termios.tcgetattr(master)
        if settings[4] != speed:
            os.write(master, bytes(byte ^ 0x5A for byte in heard[:3]))  # what a wrong baud rate looks like
            heard = b""
        elif len(heard) >= 8 and heard[0] == 3 and crc(heard[:6]) == heard[6:8]:
            body = b"\3\3\2\0\x2a" if heard[1] == 3 and heard[5] == 1 else bytes((3, heard[1] | 0x80, 2))
            os.write(master, body + crc(body))
            heard = b""


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
