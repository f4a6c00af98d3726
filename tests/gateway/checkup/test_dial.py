from __future__ import annotations

import socket
import ssl

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from gateway.checkup.dial import DialError, HungUpError, WebSocket, introduce, path_of, reach
from gateway.mqtt.packets import Connect, Disconnect
from gateway.mqtt.reasons import Reason


@pytest.fixture
def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


def context(ca=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        made.load_verify_locations(cadata=ca.cert.decode())
    return made


def test_a_server_is_asked_who_it_is_and_left_politely(serve, mqtt):
    heard = []
    with reach("127.0.0.1", serve(mqtt(heard=heard)), 5) as wire:
        assert introduce(wire, Connect(client_id="me")).reason is Reason.SUCCESS
        assert wire.sock.recv(9) == b""
    assert [type(packet) for packet in heard] == [Connect, Disconnect]


def test_a_refusal_is_an_answer_too(serve, mqtt):
    with reach("localhost", serve(mqtt(Reason.NOT_AUTHORIZED)), 5) as wire:
        assert introduce(wire, Connect(client_id="me")).reason is Reason.NOT_AUTHORIZED


def test_an_unknown_name_is_told():
    with pytest.raises(DialError, match=r"name nowhere\.invalid is not known") as caught:
        reach("nowhere.invalid", 1883, 5)
    assert "getent hosts nowhere.invalid" in caught.value.cure


def test_a_name_that_is_no_name_is_told():
    with pytest.raises(DialError, match="is not known"):
        reach("a" * 70 + ".b", 1883, 5)


def test_a_port_where_nothing_listens_is_told(free):
    with pytest.raises(DialError, match="nothing listens on this port"):
        reach("127.0.0.1", free, 5)


def test_a_server_that_never_answers_is_waited_for_until_the_deadline(serve):
    with (
        reach("127.0.0.1", serve(lambda sock: sock.recv(99) and sock.recv(99)), 0.3) as wire,
        pytest.raises(DialError, match="no answer to CONNECT"),
    ):
        introduce(wire, Connect(client_id="me"))


def test_a_server_that_hangs_up_is_told(serve):
    with reach("127.0.0.1", serve(lambda sock: sock.recv(99)), 5) as wire, pytest.raises(HungUpError, match="hung up"):
        introduce(wire, Connect(client_id="me"))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x20\x00", b"\xff" * 9])
def test_what_is_no_mqtt_server_is_told(serve, answer):
    with (
        reach("127.0.0.1", serve(lambda sock: sock.recv(99) and sock.sendall(answer)), 5) as wire,
        pytest.raises(DialError, match=r"does not keep to MQTT|hung up"),
    ):
        introduce(wire, Connect(client_id="me"))


def test_a_trusted_certificate_is_no_matter(serve, mqtt, tls, live_authority):
    import datetime as dt

    issued = live_authority.issue(now=dt.datetime.now(dt.UTC))
    with reach("localhost", serve(mqtt(), tls(issued)), 5) as wire:
        wire.secure(context(live_authority), "localhost")
        assert introduce(wire, Connect(client_id="me")).reason is Reason.SUCCESS


def test_tls_to_a_port_without_it_is_told(serve):
    with (
        reach("127.0.0.1", serve(lambda sock: sock.recv(999) and sock.sendall(b"SSH-2.0-OpenSSH\r\n")), 5) as wire,
        pytest.raises(DialError, match="does not speak TLS"),
    ):
        wire.secure(context(), "localhost")


def test_a_server_that_hangs_up_on_tls_is_told(serve):
    with (
        reach("127.0.0.1", serve(lambda sock: sock.recv(9999)), 5) as wire,
        pytest.raises(DialError, match="hung up during the TLS handshake"),
    ):
        wire.secure(context(), "localhost")


def test_a_handshake_that_gets_stuck_points_at_the_path(serve):
    with (
        reach("127.0.0.1", serve(lambda sock: sock.recv(9999) and sock.recv(9999)), 0.3) as wire,
        pytest.raises(DialError, match="no TLS handshake") as caught,
    ):
        wire.secure(context(), "localhost")
    assert "MTU" in caught.value.cure


class Framed:
    """A server's socket as an MQTT handler sees it, with WebSocket frames below, cut anywhere."""

    def __init__(self, sock, subprotocols=("mqtt",)):
        self.sock, self.protocol = sock, ServerProtocol(subprotocols=subprotocols)

    def recv(self, size):
        while data := self.sock.recv(size):
            self.protocol.receive_data(data)
            parts = [self.take(event) for event in self.protocol.events_received()]
            self.flush()
            if any(parts):
                return b"".join(parts)
        return b""

    def take(self, event):
        if isinstance(event, Frame):
            return bytes(event.data) if event.opcode is Opcode.BINARY else b""
        self.protocol.send_response(self.protocol.accept(event))
        return b""

    def sendall(self, data):
        for byte in data:
            self.protocol.send_binary(bytes([byte]))
        self.protocol.send_ping(b"still there?")
        self.flush()

    def flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.sock.sendall(data)


def test_mqtt_goes_over_websocket(serve, mqtt):
    port = serve(lambda sock: mqtt()(Framed(sock)))
    with reach("127.0.0.1", port, 5) as wire:
        assert introduce(WebSocket(wire, "127.0.0.1", port, "/mqtt"), Connect(client_id="me")).reason is Reason.SUCCESS


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"\x20\x02\x00\x01", b""],
)
def test_a_server_without_websocket_is_told(serve, answer):
    port = serve(lambda sock: sock.recv(999) and sock.sendall(answer))
    with reach("127.0.0.1", port, 5) as wire, pytest.raises(DialError, match="WebSocket"):
        WebSocket(wire, "127.0.0.1", port, "/mqtt")


def test_the_kernel_tells_what_fits_on_the_way(serve, mqtt):
    with reach("127.0.0.1", serve(mqtt()), 5) as wire:
        mtu, segment = path_of(wire.sock)
    assert mtu is not None
    assert segment is not None
    assert mtu > segment > 500


def test_a_websocket_that_does_not_take_mqtt_is_told(serve, mqtt):
    port = serve(lambda sock: mqtt()(Framed(sock, None)))
    with reach("127.0.0.1", port, 5) as wire, pytest.raises(DialError, match="did not take mqtt"):
        WebSocket(wire, "127.0.0.1", port, "/mqtt")
