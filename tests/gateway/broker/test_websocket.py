"""MQTT in WebSocket frames, section 6. The peer frames by hand, so that it may do what no library would."""

import asyncio
import base64
import os
import sys
import time
import zlib

import pytest

from gateway.broker.options import Options, Tls
from gateway.mqtt.reasons import Reason

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = ["asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="no uvloop here"))]
WS = "ws://127.0.0.1:0"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@pytest.fixture(params=LOOPS)
def run(request):
    """`run(coroutine)` on one of the event loops."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return run


def frame(opcode, data=b"", *, fin=True, masked=True):
    """One frame of a client."""
    length = len(data)
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + length.to_bytes(8, "big")
    if not masked:
        return head + data
    mask = zlib.crc32(data).to_bytes(4, "big")  # the same in every run: a test is named by what it sends
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data))


def request(path="/mqtt", *, protocol="mqtt", extra=""):
    """The request that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    wanted = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    head = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
    )
    return f"{head}Sec-WebSocket-Version: 13\r\n{wanted}{extra}\r\n".encode()


class Socket:
    """A WebSocket client by hand."""

    def __init__(self, caller):
        self.caller = caller
        self.data = b""

    async def open(self, **options):
        self.caller.say(request(**options))
        async with asyncio.timeout(10):
            self.head = (await self.caller.reader.readuntil(b"\r\n\r\n")).decode()
        return self.head.split()[1]

    def say(self, *data):
        for piece in data:
            self.caller.say(frame(BINARY, piece))

    async def frame(self):
        """The next frame: (opcode, data). No frame of a server is masked or in pieces."""
        async with asyncio.timeout(10):
            first, second = await self.caller.reader.readexactly(2)
            assert first & 0xF0 == 0x80
            assert second < 128
            length = second
            if length >= 126:
                length = int.from_bytes(await self.caller.reader.readexactly(2 if length == 126 else 8), "big")
            return first & 15, await self.caller.reader.readexactly(length)

    async def packet(self, level=5):
        """The next packet, in however many frames."""
        notation = self.caller.notation
        while True:
            found, _ = notation.split(self.data)
            if found:
                self.data = self.data[len(found[0]) :]
                return notation.read(found[0], level)
            opcode, data = await self.frame()
            assert opcode == BINARY
            self.data += data


@pytest.fixture
def opened(network, notation):
    """`await opened(served)`: an open WebSocket; with `client_id` also accepted."""

    async def opened(served, client_id=None, scheme="ws", **options):
        peer = Socket(await network.call(served.port(scheme), notation, **options))
        assert await peer.open() == "101"
        if client_id is not None:
            peer.say(network.connect(client_id))
            assert (await peer.packet()).reason == 0
        return peer

    return opened


def test_the_sub_protocol_is_echoed_and_nothing_is_compressed(run, network, notation):
    async def main():
        async with network.serving(WS) as served:
            peer = Socket(await network.call(served.port("ws"), notation))
            extra = "Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://evil.example\r\n"
            assert await peer.open(protocol="mqttv3.1, mqtt", extra=extra) == "101"
            assert "Sec-WebSocket-Protocol: mqtt\r\n" in peer.head
            assert "Extensions" not in peer.head
            await peer.caller.close()

    run(main())


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"protocol": ""}, "400"),
        ({"protocol": "mqttv3.1"}, "400"),
        ({"path": "/"}, "101"),
        ({"path": "/ws"}, "404"),
        ({"path": "/mqtt/x"}, "404"),
        ({"path": "/mqtt?token=1"}, "101"),
    ],
)
def test_requests_for_something_else_are_answered_as_by_a_web_server(run, network, notation, options, status):
    async def main():
        async with network.serving(WS) as served:
            peer = Socket(await network.call(served.port("ws"), notation))
            assert await peer.open(**options) == status
            if status != "101":
                await peer.caller.end()
            await peer.caller.close()
            await network.eventually(lambda: not served.links)

    with network.reported() as lines:
        run(main())
    assert len(lines) == (status != "101")
    assert all(line.startswith('event=websocket_refused client="" address=127.0.0.1 reason=') for line in lines)


@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        (b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        (b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
        (b"nonsense\r\n\r\n", ""),
        (b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02c1\n", ""),
        (b"GET /mqtt HTTP/1.1\r\n" + b"A: b\r\n" * 5000, "431"),
        (b"GET /mqtt HTTP/1.1\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 100, "431"),
        (b"GET /" + b"x" * 20_000, "414"),
    ],
)
def test_what_is_no_such_request_is_refused(run, network, notation, bytes_, status):
    async def main():
        async with network.serving(WS) as served:
            caller = await network.call(served.port("ws"), notation)
            caller.say(bytes_)
            answer = await caller.end()
            assert answer.count(b"HTTP/1.1") == bool(status)
            assert answer.startswith(b"HTTP/1.1 " + status.encode() if status else b"")
            await caller.close()
            await network.eventually(lambda: not served.links)

    run(main())


def test_a_request_that_does_not_end_is_cut_off_in_time(run, network, notation):
    async def main():
        async with network.serving(WS, connect_timeout_s=0.5) as served:
            caller = await network.call(served.port("ws"), notation)
            caller.say(b"GET /mqtt HTTP/1.1\r\n")
            start = time.monotonic()
            assert await caller.end() == b""
            assert time.monotonic() - start < 3
            await caller.close()

    run(main())


def test_packets_are_split_and_joined_over_frames(run, network, opened, notation):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served)
            data = network.CONNECT + notation.raw("82 .. 0001 () 't' 00") + network.publish("t", b"x" * 100)
            peer.say(*[data[at : at + 1] for at in range(len(data))])
            assert [(await peer.packet()).kind for _ in range(3)] == ["CONNACK", "SUBACK", "PUBLISH"]
            peer.say(network.publish("t", b"1") + network.publish("t", b"2") + network.publish("t", b"3")[:4])
            peer.say(b"", network.publish("t", b"3")[4:] + network.PING)
            seen = [await peer.packet() for _ in range(4)]
            assert [packet.payload for packet in seen] == [b"1", b"2", b"3", b""]
            await peer.caller.close()

    run(main())


def test_a_message_in_pieces_with_a_ping_between_them(run, network, opened):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            data = network.publish(qos=1, payload=b"x" * 300)
            peer.caller.say(frame(BINARY, data[:10], fin=False), frame(PING, b"alive?"), frame(CONT, data[10:]))
            assert await peer.frame() == (PONG, b"alive?")
            assert (await peer.packet()).kind == "PUBACK"
            await peer.caller.close()

    run(main())


def test_large_packets_travel_both_ways(run, network, opened, notation):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            peer.say(notation.raw("82 .. 0001 () 't' 00"))
            await peer.packet()
            large = bytes(range(256)) * 3900
            peer.say(network.publish("t", large))
            assert (await peer.packet()).payload == large
            await peer.caller.close()

    run(main())


def test_a_text_frame_ends_the_connection_with_1003(run, network, opened):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            peer.caller.say(frame(TEXT, b"hello"), frame(BINARY, network.PING))
            assert (await peer.packet()).reason == Reason.PROTOCOL_ERROR
            opcode, data = await peer.frame()
            assert (opcode, data[:2]) == (CLOSE, (1003).to_bytes(2, "big"))
            await peer.caller.end()
            await peer.caller.close()
            await network.eventually(lambda: not served.links)
            assert served.count("broker_protocol_errors_total") == 1

    run(main())


@pytest.mark.parametrize(("bad", "code"), [(frame(TEXT, b"hello"), 1003), (frame(3), 1002)])
def test_a_stranger_who_frames_badly_before_connect_is_sent_away_in_order(run, network, opened, bad, code, caplog):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served)
            peer.caller.say(bad)
            opcode, data = await peer.frame()
            assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, code)
            await peer.caller.end()
            await peer.caller.close()
            await network.eventually(lambda: not served.links)
            assert served.count("broker_protocol_errors_total") == 1

    run(main())
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("behind", [frame(3), frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"x"), frame(BINARY, b"\xc0\0")])
@pytest.mark.parametrize("path", ["/mqtt", "/elsewhere"])
def test_bad_frames_right_behind_the_request_end_it_without_harm(run, network, notation, behind, path, caplog):
    async def main():
        async with network.serving(WS) as served:
            caller = await network.call(served.port("ws"), notation)
            caller.say(request(path=path) + behind)
            await caller.end()
            await caller.close()
            await network.eventually(lambda: not served.links)

    run(main())
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(BINARY, b"x", masked=False), 1002),
        (frame(3), 1002),
        (frame(CONT, b"x"), 1002),
        (b"\xc2\x80\0\0\0\0", 1002),
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (frame(PING, b"x" * 126), 1002),
    ],
    ids=["not masked", "unknown opcode", "continues nothing", "reserved bit", "too large", "long ping"],
)
def test_bad_frames_end_the_connection_and_nothing_is_read_beyond(run, network, opened, bad, code):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            peer.caller.say(bad, frame(BINARY, network.PING))
            opcode, data = await peer.frame()
            assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, code)
            await peer.caller.end()
            await peer.caller.close()
            await network.eventually(lambda: not served.links)
            assert served.count("broker_protocol_errors_total") == 1

    run(main())


def test_a_remaining_length_that_never_ends_is_malformed_here_too(run, network, opened):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            peer.say(b"\x30\xff\xff\xff\xff\xff")
            assert (await peer.packet()).reason == Reason.MALFORMED_PACKET
            assert (await peer.frame())[0] == CLOSE
            await peer.caller.end()
            await peer.caller.close()

    run(main())


def test_the_closing_handshake_is_answered_and_counts_as_a_lost_connection(run, network, opened, notation):
    async def main():
        async with network.serving(WS) as served:
            watcher = await opened(served, "watcher")
            watcher.say(notation.raw("82 .. 0001 () 'will' 00"))
            await watcher.packet()
            peer = await opened(served)
            peer.say(notation.raw("""10 .. 'MQTT' 05 06 0000 () 'c2' () 'will' 0004 "gone" """))
            await peer.packet()
            peer.caller.say(frame(CLOSE, (1000).to_bytes(2, "big")))
            assert await peer.frame() == (CLOSE, (1000).to_bytes(2, "big"))
            assert await peer.caller.end() == b""
            assert (await watcher.packet()).payload == b"gone"
            await peer.caller.close()
            await watcher.caller.close()

    run(main())


def test_after_disconnect_the_websocket_is_closed_in_order(run, network, opened):
    async def main():
        async with network.serving(WS) as served:
            peer = await opened(served, "c1")
            peer.say(network.BYE)
            assert await peer.frame() == (CLOSE, (1000).to_bytes(2, "big"))
            assert await peer.caller.end() == b""
            await peer.caller.close()

    run(main())


def test_what_a_stranger_sends_before_connack_is_bounded(network, opened):
    async def main():
        async with network.serving(WS, packet_bytes=8 << 20) as served:
            peer = await opened(served)
            peer.caller.say(b"\x82\xff" + (7 << 20).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * (6 << 20))
            (link,) = served.links
            await network.eventually(lambda: link._paused)
            assert len(link._frames.reader.buffer) < 128 * 1024
            peer.caller.writer.transport.abort()
            await peer.caller.close()

    asyncio.run(main())


def test_thousands_of_tiny_frames_do_not_stall_the_turn(network, opened, notation):
    async def main():
        async with network.serving(WS, "mqtt://127.0.0.1:0") as served:
            peer = await opened(served, "c1")
            quiet = await network.call(served.port(), notation)
            quiet.say(network.connect("quiet"))
            await quiet.packet()
            peer.caller.say(frame(PING, b"x") * 30_000)
            slowest = 0.0
            for _ in range(50):
                start = time.monotonic()
                quiet.say(network.PING)
                await quiet.packet()
                slowest = max(slowest, time.monotonic() - start)
            assert slowest < 2.0  # generous: machines are shared
            await quiet.close()
            peer.caller.writer.transport.abort()
            await peer.caller.close()

    asyncio.run(main())


def test_secure_websocket(run, network, opened, tmp_path):
    async def main():
        authority = network.Authority(tmp_path)
        authority.make("server", "broker")
        tls = Tls(cert=authority.path("server.pem"), key=authority.path("server.key"))
        async with network.serving("wss://127.0.0.1:0", options=Options(listen=(), tls=tls)) as served:
            peer = await opened(served, "c1", scheme="wss", ssl=authority.client_context())
            peer.say(network.publish(qos=1, payload=b"x" * 100_000))
            assert (await peer.packet()).kind == "PUBACK"
            peer.say(network.BYE)
            assert (await peer.frame())[0] == CLOSE
            await peer.caller.close()

    run(main())


def test_the_library_is_loaded_only_where_a_websocket_listens():
    import subprocess

    code = "import gateway.broker.listeners, sys; sys.exit('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
