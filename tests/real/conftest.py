"""Fixtures that start real programs on free ports and wait on conditions."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

STRICT = "HEADGATE_TESTS_STRICT"
"""Set by `.ci/run`: a missing program is then a failure, not a skip."""


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """`need("mosquitto")` skips the test, naming the program, where it is not installed; in CI it fails."""

    def check(*programs: str) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        for program in programs:
            if shutil.which(program, path=path):
                continue
            if os.environ.get(STRICT):
                pytest.fail(f"{program} is not installed and {STRICT} is set")
            pytest.skip(f"{program} is not installed")

    return check


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A TCP port on 127.0.0.1 that nobody listens on right now."""

    def pick() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return int(s.getsockname()[1])

    return pick


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """`wait_for(condition, "what", 10)` polls a condition until it holds, or fails the test by name."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s in vain for: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a program; its output goes to `<name>.log` in tmp_path; it is stopped after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str, name: str = "program", **options: object) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(list(command), stdout=log, stderr=log, **options)  # type: ignore[call-overload]
        running.append(process)
        return process

    yield run
    for process in running:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def listening() -> Callable[[int], bool]:
    """Whether somebody accepts connections on that port of 127.0.0.1."""

    def check(port: int) -> bool:
        with socket.socket() as s:
            s.settimeout(0.2)
            return s.connect_ex(("127.0.0.1", port)) == 0

    return check


# --- Modbus -----------------------------------------------------------------------------------------------------------


class ModbusServer:
    """A server on libmodbus in a process of its own, see modbus_server.c; it is told what to hold and how to behave."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Send one command, give its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        return self._line()

    def tell(self, *commands: str) -> None:
        """Send commands that have nothing to answer."""
        for command in commands:
            assert self.ask(command) == "ok"

    def get(self, table: str, address: int, count: int = 1) -> list[int]:
        """What the server holds."""
        return [int(word, 16) for word in self.ask(f"get {table} {address} {count}").split()]


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs of the tests are built, once."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture
def libmodbus(need: Callable[..., None], build_folder: Path) -> Iterator[Callable[..., ModbusServer]]:
    """`libmodbus()` starts a Modbus TCP server, `libmodbus(path, "1")` an RTU server there that is unit 1."""
    need("gcc", "pkg-config")
    source = Path(__file__).with_name("modbus_server.c")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libmodbus"], capture_output=True, text=True, check=False
    )
    if flags.returncode:
        if os.environ.get(STRICT):
            pytest.fail("libmodbus-dev is not installed")
        pytest.skip("libmodbus-dev is not installed")
    program = build_folder / "modbus_server"
    if not program.exists():
        subprocess.run(["gcc", "-O2", "-o", str(program), str(source), *flags.stdout.split()], check=True)
    with ExitStack() as running:

        def launch(*arguments: str) -> ModbusServer:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
            process = running.enter_context(subprocess.Popen([program, *arguments], **pipes))  # type: ignore[call-overload]
            running.callback(process.kill)
            return ModbusServer(process)

        yield launch


@pytest.fixture
def cable(
    need: Callable[..., None], start: Callable[..., subprocess.Popen[bytes]], wait_for: Callable[..., None]
) -> Callable[..., subprocess.Popen[bytes]]:
    """`cable(near, far)` joins two pseudo-terminals with these names; killing the process unplugs both."""
    need("socat")

    def join(near: Path, far: Path) -> subprocess.Popen[bytes]:
        process = start("socat", f"pty,raw,echo=0,link={near}", f"pty,raw,echo=0,link={far}", name="socat")
        wait_for(lambda: near.exists() and far.exists(), "a pair of pseudo-terminals")
        return process

    return join


# --- OPC UA -----------------------------------------------------------------------------------------------------------


def _room(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"opcua_{name}", Path(__file__).parent / "opcua" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    room = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = room
    spec.loader.exec_module(room)
    return room


_servers = _room("servers")
node_opcua, opcua_launcher, opcua_link = _servers.node_opcua, _servers.opcua_launcher, _servers.opcua_link
opcua_servers, opcua_shared = _servers.opcua_servers, _servers.opcua_shared
opcua_rig = _room("rig").opcua_rig
