"""Modbus servers of other people, each as a program: `modbus_servers.py NAME PORT-OR-PATH`; they run until killed.

All hold the same as unit 1: holding register i is 257 * i, input register i is 65535 - i, every third coil and every
fifth discrete input is set; 200 of each.
"""

import asyncio
import sys
import time

SIZE = 200
HOLDING = [257 * i & 0xFFFF for i in range(SIZE)]
INPUT = [0xFFFF - i for i in range(SIZE)]
COILS = [i % 3 == 0 for i in range(SIZE)]
DISCRETE = [i % 5 == 0 for i in range(SIZE)]


def py_modbus_tcp(port):
    from pyModbusTCP.server import DataBank, ModbusServer

    bank = DataBank(coils_size=SIZE, d_inputs_size=SIZE, h_regs_size=SIZE, i_regs_size=SIZE)
    bank.set_holding_registers(0, HOLDING)
    bank.set_input_registers(0, INPUT)
    bank.set_coils(0, COILS)
    bank.set_discrete_inputs(0, DISCRETE)
    ModbusServer("127.0.0.1", int(port), data_bank=bank).start()


def fill(server):
    """The four tables of modbus-tk."""
    from modbus_tk import defines

    slave = server.add_slave(1)
    for name, kind, values in (
        ("h", defines.HOLDING_REGISTERS, HOLDING),
        ("i", defines.ANALOG_INPUTS, INPUT),
        ("c", defines.COILS, COILS),
        ("d", defines.DISCRETE_INPUTS, DISCRETE),
    ):
        slave.add_block(name, kind, 0, SIZE)
        slave.set_values(name, 0, [int(value) for value in values])
    server.start()
    time.sleep(3600)


def modbus_tk_tcp(port):
    from modbus_tk.modbus_tcp import TcpServer

    fill(TcpServer(int(port), "127.0.0.1"))


def modbus_tk_rtu(path):
    import serial
    from modbus_tk.modbus_rtu import RtuServer

    fill(RtuServer(serial.Serial(path, 115200, timeout=0.2)))


def pymodbus_data():
    from pymodbus.simulator import DataType, SimData, SimDevice

    return SimDevice(
        1,
        simdata=(
            [SimData(0, values=COILS, datatype=DataType.BITS)],
            [SimData(0, values=DISCRETE, datatype=DataType.BITS)],
            [SimData(0, values=HOLDING, datatype=DataType.UINT16)],
            [SimData(0, values=INPUT, datatype=DataType.UINT16)],
        ),
    )


def pymodbus_serial(path, framer):
    from pymodbus import FramerType
    from pymodbus.server import StartAsyncSerialServer

    asyncio.run(
        StartAsyncSerialServer(pymodbus_data(), framer=FramerType(framer), port=path, baudrate=115200, parity="N")
    )


def pymodbus_tcp(port, framer):
    from pymodbus import FramerType
    from pymodbus.server import StartAsyncTcpServer

    asyncio.run(StartAsyncTcpServer(pymodbus_data(), framer=FramerType(framer), address=("127.0.0.1", int(port))))


SERVERS = {
    "pyModbusTCP": py_modbus_tcp,
    "modbus-tk": modbus_tk_tcp,
    "modbus-tk-rtu": modbus_tk_rtu,
    "pymodbus-ascii": lambda path: pymodbus_serial(path, "ascii"),
    "pymodbus-rtu": lambda path: pymodbus_serial(path, "rtu"),
    "pymodbus-tcp": lambda port: pymodbus_tcp(port, "socket"),
    "pymodbus-ascii-over-tcp": lambda port: pymodbus_tcp(port, "ascii"),
    "pymodbus-rtu-over-tcp": lambda port: pymodbus_tcp(port, "rtu"),
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](sys.argv[2])
