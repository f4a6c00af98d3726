"""The byte stream: TCP and memory behave alike, and what TCP alone can suffer."""

import asyncio
import socket

import pytest

from drivers.stream import Memory, Tcp
from gateway.errors import LineError


class Ear:
    """A receiver that notes what it hears."""

    def __init__(self):
        self.heard = b""
        self.lost = []
        self.news = asyncio.Event()

    def on_data(self, data):
        self.heard += data
        self.news.set()

    def on_lost(self, error):
        self.lost.append(error)
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


class _Far(asyncio.Protocol):
    """The server side of a TCP connection with the face of a stream."""

    def __init__(self, world):
        self.world = world
        self.ear = Ear()

    def connection_made(self, transport):
        self.transport = transport
        self.write, self.close = transport.write, transport.abort
        self.world.far = self
        self.world.arrived.set()

    def data_received(self, data):
        self.ear.on_data(data)

    def connection_lost(self, error):
        self.ear.on_lost(error)


class World:
    """Somebody listens; `open` gives both ends of a connection to them."""

    def __init__(self, kind):
        self.kind = kind
        self.arrived = asyncio.Event()

    async def __aenter__(self):
        if self.kind == "memory":
            self.endpoint = Memory(self._accept)
            return self
        self.server = await asyncio.get_running_loop().create_server(lambda: _Far(self), "127.0.0.1", 0)
        self.endpoint = Tcp("127.0.0.1", self.server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_):
        if self.kind == "tcp":
            self.far.close()
            self.server.close()
            await self.server.wait_closed()
            await asyncio.sleep(0)

    def _accept(self, stream):
        self.far = stream
        stream.ear = Ear()
        self.arrived.set()
        return stream.ear

    async def open(self, ear):
        near = await self.endpoint.open(ear, timeout_s=5)
        await asyncio.wait_for(self.arrived.wait(), 5)
        return near


@pytest.fixture(params=["memory", "tcp"])
def scene(request):
    """Run `play(world, ear, near)` with an open stream."""

    def play(script):
        async def main():
            async with World(request.param) as world:
                ear = Ear()
                near = await world.open(ear)
                await script(world, ear, near)
                near.close()
                await asyncio.wait_for(near.wait_closed(), 5)

        asyncio.run(main())

    return play


def test_what_one_end_writes_the_other_hears_in_order(scene):
    async def script(world, ear, near):
        near.write(b"ab")
        near.write(b"cd")
        await world.far.ear.until(lambda: world.far.ear.heard == b"abcd")
        world.far.write(b"xyz")
        await ear.until(lambda: ear.heard == b"xyz")

    scene(script)


def test_the_end_of_the_other_side_is_told_once_and_its_last_words_before(scene):
    async def script(world, ear, near):
        world.far.write(b"bye")
        await ear.until(lambda: ear.heard == b"bye")
        world.far.close()
        await ear.until(lambda: ear.lost)
        near.write(b"into the void")
        near.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(ear.lost) == 1
        assert isinstance(ear.lost[0], LineError)
        assert ear.lost[0].cause == "offline"
        assert "closed" in repr(near)

    scene(script)


def test_after_closing_nothing_is_heard_any_more_and_the_other_side_knows(scene):
    async def script(world, ear, near):
        assert "open" in repr(near)
        near.close()
        near.close()
        world.far.write(b"too late")
        near.write(b"too late")
        await world.far.ear.until(lambda: world.far.ear.lost)
        await near.wait_closed()
        assert ear.heard == b""
        assert ear.lost == []
        assert world.far.ear.heard == b""

    scene(script)


# --- TCP alone ---


def test_a_port_where_nobody_listens_is_a_line_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        port = taken.getsockname()[1]
        with pytest.raises(
            LineError, match=rf"^tcp://127\.0\.0\.1:{port}: connection refused: is the device"
        ) as caught:
            asyncio.run(Tcp("127.0.0.1", port).open(Ear(), timeout_s=5))
    assert caught.value.cause == "offline"


def test_a_name_that_nobody_knows_is_a_line_error():
    async def main():
        async def unknown(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        asyncio.get_running_loop().getaddrinfo = unknown
        with pytest.raises(LineError, match=r"tcp://nowhere\.invalid:502: Name or service not known: is the host name"):
            await Tcp("nowhere.invalid", 502).open(Ear(), timeout_s=5)

    asyncio.run(main())


@pytest.mark.parametrize("host", ["10.0.0..5", "x" * 70, "h\0x"])
def test_a_name_that_can_be_none_is_a_line_error(host):
    with pytest.raises(LineError, match="is no name of a host: is the url right"):
        asyncio.run(Tcp(host, 502).open(Ear(), timeout_s=5))


def test_a_connect_that_hangs_ends_within_its_deadline():
    async def main():
        loop = asyncio.get_running_loop()

        async def swallowed(*_, **__):
            await loop.create_future()

        loop.create_connection = swallowed  # as behind a firewall that drops everything
        before = loop.time()
        with pytest.raises(LineError, match=r"no connection within 0\.2 s: is the device on"):
            await Tcp("127.0.0.1", 502).open(Ear(), timeout_s=0.2)
        assert 0.19 < loop.time() - before < 5

    asyncio.run(main())


def test_a_peer_that_hangs_up_at_once_is_no_connection():
    class Rude(asyncio.Protocol):
        def connection_made(self, transport):
            transport.abort()

    async def main():
        server = await asyncio.get_running_loop().create_server(Rude, "127.0.0.1", 0)
        async with server:
            ear = Ear()
            try:
                near = await Tcp("127.0.0.1", server.sockets[0].getsockname()[1]).open(ear, timeout_s=5)
            except LineError as error:
                ear.on_lost(error)
            else:
                await ear.until(lambda: ear.lost)
                await near.wait_closed()
            assert len(ear.lost) == 1

    asyncio.run(main())


def test_a_peer_that_never_reads_ends_the_stream_instead_of_filling_memory():
    async def main():
        async with World("tcp") as world:
            ear = Ear()
            near = await world.open(ear)
            world.far.transport.pause_reading()
            for _ in range(10_000):
                near.write(bytes(4096))
                if ear.lost:
                    break
                await asyncio.sleep(0)
            await ear.until(lambda: ear.lost)
            assert "stopped reading" in str(ear.lost[0])
            await near.wait_closed()

    asyncio.run(main())


def test_ipv6_hosts_stand_in_brackets():
    assert str(Tcp("::1", 502)) == "tcp://[::1]:502"
