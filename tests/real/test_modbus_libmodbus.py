"""The Modbus driver against other people's code: a server on libmodbus, mbpoll, pymodbus' server, and a deaf one."""

import asyncio
import shutil
import signal
import struct
import time
from contextlib import asynccontextmanager

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.client import Client
from drivers.modbus.options import DeviceOptions
from drivers.stream import Tcp
from gateway.clock import SystemClock
from gateway.errors import DeviceError, LineError
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag


@pytest.fixture
def server(libmodbus):
    """The C server; `server.tell("set holding 0 1234")` commands it."""
    return libmodbus()


def put(server, address, data):
    """Let registers hold these bytes, in both tables."""
    words = struct.unpack(f">{len(data) // 2}H", data)
    for at in range(0, len(words), 100):
        text = " ".join(f"{word:x}" for word in words[at : at + 100])
        server.tell(f"set holding {address + at} {text}", f"set input {address + at} {text}")


def device(port, **options):
    return Device(name="plc", driver="modbus", url=f"tcp://127.0.0.1:{port}", options=DeviceOptions(**options))


@asynccontextmanager
async def opened(port, *tags, metrics=None, **options):
    mine = device(port, **options)
    groups = Driver.compile(mine, tags)
    async with Driver([mine], clock=SystemClock(), metrics=metrics or Metrics()) as driver:
        yield driver, groups


def read(port, *tags, **options):
    """All tags by name, read once."""

    async def main():
        values = {}
        async with opened(port, *tags, **options) as (driver, groups):
            for group in groups:
                batch = await driver.read(group)
                assert batch.quality == GOOD
                values |= dict(zip(group.names, batch.values, strict=True))
        return values

    return asyncio.run(main())


# type, struct code of the value or its bytes, value
VALUES = [
    ("int16", "h", -12345),
    ("uint16", "H", 54321),
    ("int32", "i", -1234567890),
    ("uint32", "I", 4023456789),
    ("int64", "q", -1234567890123456789),
    ("uint64", "Q", 0xFEDCBA9876543210),
    ("float16", "e", -2.5),
    ("float32", "f", 1234.56787109375),
    ("float64", "d", 3.141592653589793),
    ("bcd16", bytes.fromhex("9876"), 9876),
    ("bcd32", bytes.fromhex("12345678"), 12345678),
    ("string", b"headgate\0\0", "headgate"),
    ("bits", bytes.fromhex("8421"), [i in (0, 5, 10, 15) for i in range(16)]),
]


def wire(code, value, order):
    """The bytes on the wire, from the big-endian ones by moving bytes one by one."""
    data = code if isinstance(code, bytes) else struct.pack(">" + code, value)
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


CASES = [
    (kind, order, wire(code, value, order), value)
    for kind, code, value in VALUES
    for order in ("ABCD", "CDAB", "BADC", "DCBA")
    if order in ("ABCD", "BADC") or (len(wire(code, value, order)) > 2 and kind != "string")
]


def tag(name, address, kind="", order=""):
    return Tag(name=name, address=address, type=kind, order=order, options={"length": 10} if kind == "string" else {})


def test_every_type_in_every_order_register_by_register_and_merged(server):
    tags, wanted, at = [], {}, 100
    for kind, order, data, value in CASES:
        put(server, at, data)
        for table in ("holding", "input"):
            name = f"{table}-{kind}-{order}"
            tags.append(tag(name, f"{table}:{at}", kind, order))
            wanted[name] = value
        at += len(data) // 2 + 1
    singly = {}
    for one in tags:
        singly |= read(server.port, one)
    assert singly == wanted
    assert read(server.port, *tags) == wanted
    assert read(server.port, *tags, max_registers=5, max_in_flight=16) == wanted


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_our_orders_are_those_of_libmodbus(server, order):
    put(server, 10, bytes.fromhex("42 F6 E9 79"))
    (value,) = read(server.port, tag("t", "holding:10", "float32", order)).values()
    assert value == pytest.approx(float(server.ask(f"float 10 {order}")), rel=1e-6)


def test_modicon_numbers_hexadecimal_and_the_ends_of_the_tables_reach_the_same_register(server):
    server.tell("set holding 0 11", "set holding 100 22", "set holding 65535 33", "set input 342 44")
    server.tell("set coil 0 1", "set coil 65535 1", "set discrete 4 1")
    same = {
        "40001": 0x11, "400001": 0x11, "holding:0": 0x11, "40101": 0x22, "holding:0x64": 0x22, "465536": 0x33,
        "holding:65535": 0x33, "input:0x156": 0x44, "300343": 0x44, "1": True, "00002": False, "065536": True,
        "10005": True, "discrete:4": True, "holding:100.1": True, "holding:100.0": False, "40101.5": True,
    }  # fmt: skip
    assert read(server.port, *[tag(a, a) for a in same]) == same


def test_two_thousand_coils_come_in_one_request_each_in_its_place(server):
    ones = {i for i in range(2000) if i * i % 7 == 2}
    for first in range(0, 2000, 100):
        server.tell(f"set coil {first} " + " ".join(str(int(i in ones)) for i in range(first, first + 100)))
    metrics = Metrics()
    values = read(server.port, *[tag(str(i), f"coil:{i}") for i in range(2000)], metrics=metrics)
    assert values == {str(i): i in ones for i in range(2000)}
    assert {name: v for name, _, v in metrics if v and name.endswith("_total")} == {"modbus_requests_total": 1}


def test_many_values_with_many_requests_in_flight(server):
    put(server, 0, struct.pack(">1000f", *map(float, range(1000))))
    values = read(server.port, *[tag(str(i), f"holding:{2 * i}", "float32") for i in range(1000)], max_in_flight=16)
    assert values == {str(i): float(i) for i in range(1000)}


def test_the_event_loop_of_production_reads_the_same(server):
    uvloop = pytest.importorskip("uvloop")
    put(server, 0, struct.pack(">100f", *map(float, range(100))))
    tags = [tag(str(i), f"holding:{2 * i}", "float32") for i in range(100)]

    async def main():
        async with opened(server.port, *tags) as (driver, (group,)):
            for _ in range(50):
                batch = await driver.read(group)
        return batch.values

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == list(map(float, range(100)))


# --- refusals ---


def test_more_registers_than_the_standard_allows_are_never_asked_for_and_would_be_refused(server):
    async def main():
        client = Client(
            Tcp("127.0.0.1", server.port), units=frozenset({1}), timeout_s=5, connect_delay_s=0, max_in_flight=1,
            clock=SystemClock(), metrics=Metrics(),
        )  # fmt: skip
        await client.open()
        try:
            requests = [Request(1, 3, 0, 126), Request(1, 3, 0, 125), Request(1, 1, 0, 2001)]
            return (await client.fetch(requests, timeout_s=5, gap_s=0)).answers
        finally:
            await client.close()

    too_many, full, too_many_bits = asyncio.run(main())
    assert isinstance(too_many, Failure)
    assert (too_many.cause, too_many_bits.cause) == ("exception:3", "exception:3")
    assert full == bytes(250)
    assert len(read(server.port, *[tag(str(i), f"holding:{i}") for i in range(300)])) == 300


def test_a_device_with_holes_and_a_small_limit_gives_all_it_has(server):
    put(server, 0, struct.pack(">200H", *range(200)))
    server.tell("refuse holding 17 18 2", "refuse holding 90 90 4", "limit 40 3")
    tags = [tag(str(i), f"holding:{i}") for i in range(200)]
    metrics = Metrics()

    async def main():
        async with opened(server.port, *tags, metrics=metrics) as (driver, (group,)):
            for _ in range(6):
                batch = await driver.read(group)
            return batch

    batch = asyncio.run(main())
    bad = {i: q for i, q in enumerate(batch.quality) if q != GOOD}
    assert bad == {17: "bad:exception:2", 18: "bad:exception:2", 90: "bad:exception:4"}
    assert [v for v in batch.values if v is not None] == [i for i in range(200) if i not in bad]


def test_a_healed_device_is_read_in_large_requests_again(server):
    class Later(SystemClock):
        ahead = 0.0

        def monotonic(self):
            return super().monotonic() + self.ahead

    server.tell("refuse holding 5 5 2")
    mine, clock, metrics = device(server.port), Later(), Metrics()
    (group,) = Driver.compile(mine, [tag(str(i), f"holding:{i}") for i in range(10)])

    async def main():
        async with Driver([mine], clock=clock, metrics=metrics) as driver:
            first = await driver.read(group)
            server.tell("heal")
            clock.ahead = 3600
            second = await driver.read(group)
            before = requests()
            await driver.read(group)
            return first, second, requests() - before

    def requests():
        return sum(v for name, _, v in metrics if name == "modbus_requests_total")

    first, second, steady = asyncio.run(main())
    assert first.quality[5] == "bad:exception:2"
    assert second.quality == GOOD
    assert steady == 1


# --- slow, dead, deaf ---


def test_answers_that_come_late_never_shift_values(server):
    metrics = Metrics()
    tags = [tag("a", "holding:1"), tag("b", "holding:200")]
    server.tell("set holding 1 aaaa", "set holding 200 bbbb", "pause 250")

    async def main():
        async with opened(server.port, *tags, metrics=metrics, timeout="100ms") as (driver, (group,)):
            for _ in range(2):
                with pytest.raises(DeviceError, match=r"no answer within 0\.1 s"):
                    await driver.read(group)
            await asyncio.to_thread(server.tell, "heal")
            values = set()
            async with asyncio.timeout(20):
                while len(values) < 5:
                    try:
                        batch = await driver.read(group)
                    except DeviceError:
                        continue
                    assert batch.values == [0xAAAA, 0xBBBB]
                    values.add(batch.time)
                    await asyncio.sleep(0.002)

    asyncio.run(main())
    late = sum(v for name, _, v in metrics if name == "modbus_late_answers_total")
    foreign = sum(v for name, _, v in metrics if name == "modbus_foreign_answers_total")
    assert (late > 0, foreign) == (True, 0)


def test_a_server_that_is_killed_in_flight_is_noticed_at_once(server):
    async def main():
        async with opened(server.port, tag("a", "holding:1"), timeout="30s") as (driver, (group,)):
            await driver.read(group)
            server.process.send_signal(signal.SIGSTOP)
            reading = asyncio.create_task(driver.read(group))
            await asyncio.sleep(0)
            before = time.monotonic()
            server.process.kill()
            with pytest.raises(LineError):
                await reading
            assert time.monotonic() - before < 5
            with pytest.raises(LineError):
                await driver.read(group)

    asyncio.run(main())


def test_a_server_that_accepts_and_never_answers_costs_a_timeout_a_read_and_then_its_connection():
    async def main():
        async def deaf(_, writer):
            await gone.wait()
            writer.close()

        gone = asyncio.Event()
        listener = await asyncio.start_server(deaf, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener:
            before = time.monotonic()
            async with opened(port, tag("a", "holding:1"), tag("b", "holding:999"), timeout="100ms") as (
                driver,
                groups,
            ):
                for _ in range(2):
                    with pytest.raises(DeviceError) as caught:
                        await driver.read(groups[0])
                    assert caught.value.cause == "timeout"
                with pytest.raises(LineError, match="3 times in a row"):
                    await driver.read(groups[0])
            assert 0.29 < time.monotonic() - before < 5
            gone.set()

    asyncio.run(main())


# --- others ---


def test_pymodbus_server_with_a_gap_it_refuses():
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    data = [
        SimData(10, values=[1.5, 2.5], datatype=DataType.FLOAT32),
        SimData(20, values=[7, 8], datatype=DataType.UINT16),
    ]

    async def main():
        pymodbus = ModbusTcpServer([SimDevice(1, simdata=data)], address=("127.0.0.1", 0))
        await pymodbus.serve_forever(background=True)
        listener = pymodbus.transport
        tags = [
            tag("a", "holding:10", "float32"),
            tag("b", "input:12", "float32"),
            tag("c", "holding:20"),
            tag("d", "holding:21"),
            tag("none", "holding:22"),
        ]
        try:
            async with opened(listener.sockets[0].getsockname()[1], *tags) as (driver, (group,)):
                batch = await driver.read(group)
        finally:
            await pymodbus.shutdown()
            await listener.wait_closed()
        assert batch.values == [1.5, 2.5, 7, 8, None]
        assert batch.quality == [GOOD] * 4 + ["bad:exception:2"]

    asyncio.run(main())


def test_mbpoll_reads_from_the_simulated_devices_what_we_do(need):
    need("mbpoll")

    async def main():
        async with Driver.simulate() as section:
            port = section["meter"]["url"].rpartition(":")[2]
            command = [shutil.which("mbpoll"), "-m", "tcp", "-a", "2", "-p", port, "-t", "3:float", "-B", "-0"]
            process = await asyncio.create_subprocess_exec(
                *command, "-r", "0", "-c", "4", "-1", "127.0.0.1", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
        return output.decode()

    lines = [line.split(":")[1].strip() for line in asyncio.run(main()).splitlines() if line.startswith("[")]
    voltage, current, power, frequency = map(float, lines)
    assert 228 <= voltage <= 232
    assert 4 <= current <= 8
    assert power == pytest.approx(voltage * current, rel=0.01)
    assert 49.9 <= frequency <= 50.1
