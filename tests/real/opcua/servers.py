"""OPC UA servers of other people, each in a process of its own, and a link between that freezes, breaks and delays.

Loaded by the conftest.py of the folders whose tests need them.

Settings of a server, all optional:
    counters, period    how many nodes counter.I there are (UInt32), and every how many ms each goes up by one: its k-th
                        value is k and has the source time `started` + k * period, so a value that is missed is seen
    since               when counting began, in ms since 1970: a server that is started again with what its state called
                        `started` is where it would be had it never stopped, and its history has what nobody saw
    paused              do not count before the order "go"
    history, capacity   how many of the counters have a history, and how many values each keeps
    policies, modes     names of policies ("None", "Basic256Sha256" …), modes ("None", "Sign", "SignAndEncrypt")
    anonymous, users    whether anybody may come in, and passwords by user
    trusted             a folder with the client certificates (DER) that may connect; left out, all may
    users_trusted       a folder with the user certificates (DER) that may log in
    certificate, key    the server's own, DER and PEM; left out, it makes its own
    limits              OperationLimits by node-opcua's names: maxMonitoredItemsPerCall, maxNodesPerRead …
    namespaces          the URIs in the order in which they are registered; urn:headgate:tests:plant is among them
    types               nodes of every built-in type, of a structure and of enumerations (values.json, types.xml):
                        type.T, type.T.array, write.T, type.matrix, type.structure, type.Mode, type.Grade, type.beyond
                        (a number without a name), bad, uncertain, analog (EURange 0 to 200), readonly, vanishing …
    tree                [folders, leaves]: Plant/Tree/F0/L0 … to browse
All are in namespace urn:headgate:tests:plant with their name as string identifier, below Objects/Plant.

Orders, `server.tell("set", node="write.Int16", type="Int16", value=3, status="Good")` for example: stop and go (the
counters), set, get, kill_session (keep_subscriptions), drop_subscription, drop_items, vanish and appear (node), state,
quit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
KEPT = "HEADGATE_TESTS_NPM"
"""A folder whose node_modules stay from one run to the next; without it each run installs its own."""
PACKAGES = ["node-opcua@2"]


class OpcUaServer:
    """A server in a process of its own. `url` is where it listens; `namespaces` is its namespace array."""

    def __init__(self, command: list[str], settings: dict[str, Any], log: Path) -> None:
        self._command = command
        self._log = log
        self.settings = settings
        self.port: int = settings["port"]
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.start()

    def start(self, **changed: Any) -> None:
        """Start it, or start it again after `quit` or `kill`, perhaps with other settings, on the same port."""
        self.settings |= changed
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, json.dumps(self.settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        try:
            self.namespaces: list[str] = self._hear()["namespaces"]
        except BaseException:
            self.kill()
            raise

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server has ended:\n{self._log.read_text()[-4000:]}"
        return dict(json.loads(line))

    def tell(self, what: str, **order: Any) -> dict[str, Any]:
        """Give an order, return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **order}) + "\n")
        self.process.stdin.flush()
        answer = self._hear()
        assert answer["ok"], answer
        return answer

    def used_s(self) -> tuple[float, float]:
        """Processor time it has had, and time it waited for a processor, asked of the system, of its main thread.

        A server that is saturated does not answer, and one whose cores others use does not show it by what it had.
        """
        ran, waited, _ = Path(f"/proc/{self.process.pid}/schedstat").read_text().split()
        return int(ran) / 1e9, int(waited) / 1e9

    def quit(self) -> None:
        """End it in order: sessions are told, sockets are closed."""
        self.tell("quit")
        self._end()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self._end()

    def _end(self) -> None:
        self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def close(self) -> None:
        """After the test: whatever state it is in, it is gone then."""
        if self.process.poll() is None:
            self.process.kill()
        self._end()


def _installed(folder: Path) -> Path:
    """The folder with node-opcua in it. Who comes first installs it, the others wait for that."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / "node-opcua").exists():
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def node_opcua(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Where node-opcua lies, one folder for all processes of a run; installed when it is first asked for."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = Path(os.environ.get(KEPT, shared / "npm-opcua"))
    return lambda: _installed(folder)


class Launcher:
    """Starts servers. Those that make their own certificate share it, so that only the first takes the time."""

    def __init__(self, folder: Path, need: Callable[..., None], free_port: Callable[[], int], npm: Callable[[], Path]):
        self._folder = folder
        self._need = need
        self._free_port = free_port
        self._npm = npm

    def launch(self, kind: str, settings: dict[str, Any]) -> OpcUaServer:
        """A server of `kind`, node-opcua or asyncua, that is ready."""
        if kind == "asyncua":
            command = [sys.executable, str(HERE / "asyncua_server.py")]
        else:
            self._need("node", "npm")
            command = ["node", str(HERE / "node_server.js"), str(self._npm())]
        port = self._free_port()
        is_picky = {"trusted", "users_trusted"} & settings.keys()  # it remembers whom it trusted
        folder = self._folder / (f"{kind}-{port}" if is_picky else kind)
        folder.mkdir(exist_ok=True)
        return OpcUaServer(command, {"port": port, "folder": str(folder), **settings}, self._folder / f"{port}.log")


@pytest.fixture(scope="session")
def opcua_launcher(
    tmp_path_factory: pytest.TempPathFactory,
    need: Callable[..., None],
    free_port: Callable[[], int],
    node_opcua: Callable[[], Path],
) -> Launcher:
    """What starts servers."""
    return Launcher(tmp_path_factory.mktemp("opcua"), need, free_port, node_opcua)


@pytest.fixture
def opcua_servers(opcua_launcher: Launcher) -> Iterator[Callable[..., OpcUaServer]]:
    """`opcua_servers("node-opcua", counters=10)` or `opcua_servers("asyncua")` starts one for this test."""
    with ExitStack() as running:

        def launch(kind: str, **settings: Any) -> OpcUaServer:
            server = opcua_launcher.launch(kind, settings)
            running.callback(server.close)
            return server

        yield launch


@pytest.fixture(scope="module")
def opcua_shared(opcua_launcher: Launcher) -> Iterator[Callable[..., OpcUaServer]]:
    """Like `opcua_servers`, but tests of one file that ask for the same get the same one, one after the other."""
    known: dict[str, OpcUaServer] = {}

    def get(kind: str, **settings: Any) -> OpcUaServer:
        key = json.dumps([kind, settings])
        if key in known and known[key].process.poll() is not None:
            known.pop(key).close()
        if key not in known:
            known[key] = opcua_launcher.launch(kind, settings)
        return known[key]

    yield get
    for server in known.values():
        server.close()


class Link:
    """A TCP link in a thread of its own: `port` here leads to the port of the server.

    `delay_s` is how long each way takes; `sent` and `received` count the bytes to and from the server; `accepted` the
    connections. While frozen nothing gets through and nothing is closed, as where a switch lost its power.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.sent = self.received = self.accepted = 0
        self._is_open = True
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"opc.tcp://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._flows.wait()
        try:
            if not self._is_open:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        there = self._loop.create_task(self._pump(reader, far_writer, "sent"))
        back = self._loop.create_task(self._pump(far_reader, writer, "received"))
        self._pumps |= {there, back}
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for pump in (there, back):
            pump.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        self._pumps -= {there, back}
        self._pairs.discard(pair)
        for end in pair:
            end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def hand_on() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - self._loop.time())
                await self._flows.wait()
                setattr(self, counter, getattr(self, counter) + len(data))
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        handing = self._loop.create_task(hand_on())
        try:
            data = b"-"
            while data and not handing.done():
                data = await reader.read(65536)
                await waiting.put((self._loop.time() + self.delay_s, data))
            await handing
        except OSError:
            return
        finally:
            handing.cancel()
            await asyncio.gather(handing, return_exceptions=True)

    def freeze(self) -> None:
        """Hold everything back from now on; nobody is told."""

        async def hold() -> None:
            self._flows.clear()

        self._do(hold())

    def thaw(self) -> None:
        """Let everything through again, what was held back first."""

        async def let_go() -> None:
            self._flows.set()

        self._do(let_go())

    def cut(self) -> None:
        """Reset every connection, at both ends, whatever is on its way."""

        async def reset() -> None:
            for pair in list(self._pairs):
                for end in pair:
                    sock: socket.socket = end.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.transport.abort()

        self._do(reset())

    def shut(self) -> None:
        """Cut, and refuse new connections until `open`."""
        self._is_open = False
        self.cut()

    def open(self) -> None:
        """Take connections again."""
        self._is_open = True

    def close(self) -> None:
        """After the test."""

        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pair in self._pairs:
                for writer in pair:
                    writer.transport.abort()
            await asyncio.sleep(0)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def opcua_link() -> Iterator[Callable[[int], Link]]:
    """`opcua_link(server.port)` makes a link to that port."""
    with ExitStack() as running:

        def make(target: int) -> Link:
            link = Link(target)
            running.callback(link.close)
            return link

        yield make
