"""Read and written: Modbus servers of seven makers, over TCP, serial lines and both, each value seen by mbpoll too."""

import asyncio
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from gateway.clock import SystemClock
from gateway.errors import TagError
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag, WriteRules

HERE = Path(__file__).parent
HOLDING = [257 * i & 0xFFFF for i in range(200)]
INPUT = [0xFFFF - i for i in range(200)]

OVER_TCP = ["libmodbus", "pyModbusTCP", "modbus-tk", "pymodbus", "modbus-serial", "jsmodbus"]
OTHERS = [
    "libmodbus rtu",
    "modbus-tk rtu",
    "pymodbus rtu",
    "pymodbus ascii",
    "libmodbus rtu over tcp",
    "pymodbus rtu over tcp",
    "pymodbus ascii over tcp",
]
OPTIONS = {
    "pymodbus": {"max_in_flight": 1},  # of requests that come together it answers the first and the last
    "pyModbusTCP": {"max_in_flight": 4, "bit_write": "read_first"},
    "modbus-serial": {"max_in_flight": 4, "bit_write": "read_first"},
    "jsmodbus": {"max_in_flight": 4, "bit_write": "read_first"},
}
"""What these servers need, as devices of their kind would: most do not know function 22."""


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A folder with the Modbus servers of npm in its node_modules."""
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
    packages = ["modbus-serial@8", "jsmodbus@5"]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    return folder


class Lab:
    """Starts servers that hold what is said above; each method gives the url under which unit 1 is to be found."""

    def __init__(self, request):
        self._get = request.getfixturevalue
        self._folder = self._get("tmp_path")

    def run(self, what):
        """`run("modbus-tk rtu")` for example."""
        name, *rest = what.split()
        match rest:
            case []:
                return self.over_tcp(name)
            case [framing]:
                return self.on_a_line(name, framing)
        return self.through_a_converter(name, rest[0])

    def over_tcp(self, name):
        if name == "libmodbus":
            return f"tcp://127.0.0.1:{self._libmodbus().port}"
        port = self._get("free_port")()
        if name in ("modbus-serial", "jsmodbus"):
            self._node(name, port)
        else:
            self._python("pymodbus-tcp" if name == "pymodbus" else name, port)
        self._wait_for(port)
        return f"tcp://127.0.0.1:{port}"

    def on_a_line(self, name, framing):
        near, far = self._folder / "near", self._folder / "far"
        self._get("cable")(near, far)
        if name == "libmodbus":
            self._libmodbus(str(far), "1")
        else:
            self._python(f"{name}-{framing}", far)
        return f"{framing}://{near}?baud=115200&parity=N"

    def through_a_converter(self, name, framing):
        port = self._get("free_port")()
        if name == "libmodbus":
            far = self._folder / "far"
            self._get("need")("socat")
            listen = f"tcp-listen:{port},bind=127.0.0.1,reuseaddr"
            self._get("start")("socat", f"pty,raw,echo=0,link={far}", listen, name="converter")
            self._get("wait_for")(far.exists, "the converter's pseudo-terminal")
            self._libmodbus(str(far), "1")
        else:
            self._python(f"{name}-{framing}-over-tcp", port)
            self._wait_for(port)
        return f"{framing}+tcp://127.0.0.1:{port}"

    def _wait_for(self, port):
        self._get("wait_for")(lambda: self._get("listening")(port), "a server on its port", 30)

    def _libmodbus(self, *where):
        server = self._get("libmodbus")(*where)
        for table, values in (("holding", HOLDING), ("input", INPUT)):
            server.tell(*(f"set {table} {i} {value:x}" for i, value in enumerate(values)))
        server.tell(*(f"set coil {i} 1" for i in range(0, 200, 3)), *(f"set discrete {i} 1" for i in range(0, 200, 5)))
        server.tell("refuse holding 200 65535 2")
        return server

    def _python(self, name, where):
        self._get("start")(sys.executable, str(HERE / "modbus_servers.py"), name, str(where), name=name)

    def _node(self, name, port):
        self._get("need")("node", "npm")
        folder = str(self._get("modules"))
        self._get("start")("node", str(HERE / "modbus_servers.js"), folder, name, str(port), name=name)


@pytest.fixture
def serve(request):
    return Lab(request).run


def tag(name, address, kind="", order=""):
    return Tag(name=name, address=address, type=kind, order=order, write=WriteRules())


def device(url, **options):
    return Device(name="plc", driver="modbus", url=url, options=DeviceOptions(**options))


@asynccontextmanager
async def opened(mine):
    """A driver that has got through to the device: servers that were only just started need a moment."""
    async with Driver([mine], clock=SystemClock(), metrics=Metrics()) as driver:
        async with asyncio.timeout(30):
            while True:
                try:
                    await driver.read_tag(mine, tag("first", "holding:1"))
                    break
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not last
                    print("not yet:", error)
                    await asyncio.sleep(0.2)
        yield driver


async def read(driver, mine, tags):
    values = {}
    for group in Driver.compile(mine, tags):
        batch = await driver.read(group)
        assert batch.quality == GOOD
        values |= dict(zip(group.names, batch.values, strict=True))
    return [values[tag.name] for tag in tags]


READ = [
    *(tag(f"h{i}", f"holding:{i}") for i in range(200)),
    *(tag(f"i{i}", f"input:{i}") for i in range(200)),
    *(tag(f"c{i}", f"coil:{i}") for i in range(200)),
    *(tag(f"d{i}", f"discrete:{i}") for i in range(200)),
    tag("u32", "input:10", "uint32", "CDAB"),
]
THERE = [
    *HOLDING,
    *INPUT,
    *(i % 3 == 0 for i in range(200)),
    *(i % 5 == 0 for i in range(200)),
    INPUT[11] << 16 | INPUT[10],
]

WRITTEN = [
    (tag("coil", "coil:7"), True),
    (tag("coil", "coil:9"), False),
    (tag("one", "holding:3"), 0xBEEF),
    (tag("float", "holding:10", "float32", "CDAB"), 1.5),
    (tag("long", "holding:20", "int64"), -1234567890123),
    (tag("bit", "holding:30.4"), True),
]


def mbpoll(url, *what):
    """The numbers that mbpoll reads there."""
    command = [shutil.which("mbpoll"), "-0", "-1", "-a", "1", *what]
    if url.startswith("tcp:"):
        command += ["-m", "tcp", "-p", url.rpartition(":")[2], "127.0.0.1"]
    else:
        command += ["-m", "rtu", "-b", "115200", "-P", "none", url.removeprefix("rtu://").partition("?")[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return [line.split(":")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("name", OVER_TCP + OTHERS)
def test_all_that_a_server_holds_is_read_and_what_is_written_is_read_back(serve, name):
    mine = device(serve(name), **OPTIONS.get(name, {"max_in_flight": 4}))

    async def main():
        async with opened(mine) as driver:
            assert await read(driver, mine, READ) == THERE
            assert await read(driver, mine, READ) == THERE
            for what, value in WRITTEN:
                await driver.write(mine, what, value)
                assert await driver.read_tag(mine, what) == value
                assert await read(driver, mine, [what]) == [value]
            untouched = [i for i in range(200) if i not in (3, 10, 11, 20, 21, 22, 23, 30)]
            assert await read(driver, mine, [READ[i] for i in untouched]) == [HOLDING[i] for i in untouched]
            assert await driver.read_tag(mine, tag("word", "holding:30")) == HOLDING[30] | 1 << 4

    asyncio.run(main())


@pytest.mark.parametrize("name", [n for n in OVER_TCP + OTHERS if n != "jsmodbus"])  # which answers with nothing at all
def test_what_a_server_does_not_have_is_refused_and_costs_nobody_anything(serve, name):
    mine = device(serve(name))

    async def main():
        async with opened(mine) as driver:
            with pytest.raises(TagError) as caught:
                await driver.read_tag(mine, tag("beyond", "holding:5000"))
            assert caught.value.cause == "exception:2"
            assert await driver.read_tag(mine, tag("first", "holding:1")) == 257

    asyncio.run(main())


@pytest.mark.parametrize("name", [*OVER_TCP, "libmodbus rtu", "modbus-tk rtu", "pymodbus rtu"])
def test_mbpoll_reads_from_the_same_server_what_we_have_read_and_written(need, serve, name):
    need("mbpoll")
    url = serve(name)
    mine = device(url)
    tags = [tag(f"f{i}", f"holding:{i}", "float32", "ABCD") for i in (40, 42)]

    async def main():
        async with opened(mine) as driver:
            assert await read(driver, mine, READ) == THERE
            await driver.write(mine, tags[0], 1234.5)
            await driver.write(mine, tags[1], -0.25)
            await driver.write(mine, tag("coil", "coil:1"), True)

    asyncio.run(main())
    assert [int(word, 16) for word in mbpoll(url, "-t", "4:hex", "-r", "0", "-c", "40")] == HOLDING[:40]
    assert [int(word, 16) for word in mbpoll(url, "-t", "3:hex", "-r", "0", "-c", "40")] == INPUT[:40]
    assert mbpoll(url, "-t", "0", "-r", "0", "-c", "6") == ["1", "1", "0", "1", "0", "0"]
    assert mbpoll(url, "-t", "1", "-r", "0", "-c", "6") == ["1", "0", "0", "0", "0", "1"]
    assert [float(text) for text in mbpoll(url, "-t", "4:float", "-B", "-r", "40", "-c", "2")] == [1234.5, -0.25]
