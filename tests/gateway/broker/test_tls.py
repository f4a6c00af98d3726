"""TLS listeners: who is believed, what is reloaded, and that the layer loses and stalls nothing."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time

import pytest

from gateway.broker.access import Open
from gateway.broker.listeners import ListenError
from gateway.broker.options import Options, Tls, parse_address
from gateway.broker.tls import CertificateError, load

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = ["asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="no uvloop here"))]
SECURE = "mqtts://127.0.0.1:0"


@pytest.fixture(params=LOOPS)
def run(request):
    """`run(coroutine)` on one of the event loops."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture
def authority(network, tmp_path):
    """An authority with the server's certificate made."""
    authority = network.Authority(tmp_path)
    authority.make("server", "broker")
    return authority


@pytest.fixture
def tls_of(authority):
    """`tls_of(ca=True, …)`: the options of a listener."""

    def make(*, ca=False, **options):
        cert, key = authority.path("server.pem"), authority.path("server.key")
        return Options(listen=(), tls=Tls(cert=cert, key=key, ca=authority.ca if ca else None, **options))

    return make


class Noticing(Open):
    """Lets everybody in and remembers what they showed."""

    def __init__(self):
        self.peers = []

    async def login(self, connect, peer):
        self.peers.append(peer)
        return await super().login(connect, peer)


def test_mqtt_over_tls_in_small_and_large(run, network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            caller = await network.call(served.port("mqtts"), notation, ssl=authority.client_context())
            caller.say(network.CONNECT, notation.raw("82 .. 0001 () 't/#' 00"))
            assert [(await caller.packet()).kind for _ in range(2)] == ["CONNACK", "SUBACK"]
            large = bytes(range(256)) * 3000
            caller.say(network.publish("t/1", large), network.publish("t/2", b"small"))
            assert (await caller.packet()).payload == large
            assert (await caller.packet()).payload == b"small"
            for n in range(2000):
                caller.say(network.publish(f"t/{n}", b"x" * 50))
            assert [(await caller.packet()).topic for _ in range(2000)] == [f"t/{n}" for n in range(2000)]
            caller.say(network.BYE)
            assert await caller.end() == b""
            await caller.close()
            await network.eventually(lambda: not served.links)

    run(main())


def test_the_last_word_arrives_over_tls_too(run, network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            caller = await network.call(served.port("mqtts"), notation, ssl=authority.client_context())
            caller.say(network.CONNECT, b"\x00\x00", b"x" * 300_000)
            assert [(await caller.packet()).kind for _ in range(2)] == ["CONNACK", "DISCONNECT"]
            assert await caller.end() == b""
            assert served.links  # it lingers: a bare close with bytes unread would take the last word back
            await caller.close()
            await network.eventually(lambda: not served.links)

    run(main())


def test_a_flood_over_tls_is_read_a_share_at_a_time_and_loses_nothing(run, network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of(), publish_per_s=20_000) as served:
            context = authority.client_context()
            caller = await network.call(served.port("mqtts"), notation, ssl=context)
            caller.say(network.CONNECT)
            await caller.packet()
            caller.say(*[network.publish(qos=1, packet_id=n % 900 + 1) for n in range(25_000)])
            (link,) = served.links
            for n in range(25_000):
                assert (await caller.packet()).packet_id == n % 900 + 1
                assert link.connection.buffered <= 16 * 1024  # a record; the rest waits in encrypted form
            await caller.close()

    run(main())


def test_the_sockets_below_tls_send_at_once(network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            caller = await network.call(served.port("mqtts"), notation, ssl=authority.client_context())
            (link,) = served.links
            sock = link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await caller.close()

    asyncio.run(main())


def test_what_a_client_certificate_says_reaches_the_login(run, network, notation, authority, tls_of):
    async def main():
        access = Noticing()
        authority.make("meter", "meter-7")
        async with network.serving(SECURE, options=tls_of(ca=True), access=access) as served:
            caller = await network.call(served.port("mqtts"), notation, ssl=authority.client_context("meter"))
            caller.say(network.CONNECT)
            assert (await caller.packet()).reason == 0
            (peer,) = access.peers
            assert peer.certificate["subject"] == ((("commonName", "meter-7"),),)
            assert (peer.scheme, peer.is_local) == ("mqtts", True)
            await caller.close()

    run(main())


def test_behind_our_goodbye_nobody_asks_openssl_for_the_certificate(run, network, notation, authority, tls_of):
    async def main():
        authority.make("meter", "meter-7")
        async with network.serving(SECURE, options=tls_of(ca=True)) as served:
            caller = await network.call(served.port("mqtts"), notation, ssl=authority.client_context("meter"))
            caller.say(network.CONNECT)
            assert (await caller.packet()).reason == 0
            (link,) = served.links
            assert link.other_end().certificate
            link.transport.write_eof()
            assert link.other_end().certificate is None
            await caller.close()

    run(main())


async def _is_let_in(network, notation, port, context):
    try:
        caller = await network.call(port, notation, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return False
    caller.say(network.CONNECT)
    try:
        return (await caller.packet()).reason == 0
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return False
    finally:
        await caller.close()


@pytest.mark.parametrize(("clients", "is_let_in"), [("required", False), ("optional", True)])
def test_a_client_without_certificate(network, notation, authority, tls_of, clients, is_let_in):
    async def main():
        options = tls_of(ca=True, clients=clients)
        async with network.serving(SECURE, options=options) as served:
            context = authority.client_context()
            assert await _is_let_in(network, notation, served.port("mqtts"), context) is is_let_in
            assert served.count("broker_tls_handshakes_failed_total") == (not is_let_in)

    with network.reported() as lines:
        asyncio.run(main())
    if not is_let_in:
        assert lines == ['event=tls_failed client="" address=127.0.0.1 reason="peer did not return a certificate"']


def test_a_certificate_of_another_authority_is_not_believed(network, notation, authority, tls_of, tmp_path):
    async def main():
        (tmp_path / "other").mkdir()
        other = network.Authority(tmp_path / "other", "somebody else")
        other.make("meter", "meter-7")
        context = authority.client_context()
        context.load_cert_chain(other.path("meter.pem"), other.path("meter.key"))
        for clients in ("required", "optional"):
            async with network.serving(SECURE, options=tls_of(ca=True, clients=clients)) as served:
                assert not await _is_let_in(network, notation, served.port("mqtts"), context)

    asyncio.run(main())


def test_after_a_reload_who_shows_a_revoked_certificate_is_refused_or_sent_away_and_the_others_stay(
    run, network, notation, authority, tls_of
):
    async def main():
        good, bad = authority.make("good", "good"), authority.make("bad", "bad")
        assert good
        options = tls_of(ca=True, crl=authority.revoke())
        async with network.serving(SECURE, options=options) as served:
            port = served.port("mqtts")
            before = await network.call(port, notation, ssl=authority.client_context("bad"))
            stays = await network.call(port, notation, ssl=authority.client_context("good"))
            for caller, name in ((before, "before"), (stays, "stays")):
                caller.say(network.connect(name))
                assert (await caller.packet()).reason == 0
            authority.revoke(bad)
            assert await served.server.reload() == ()
            assert not await _is_let_in(network, notation, port, authority.client_context("bad"))
            assert await _is_let_in(network, notation, port, authority.client_context("good"))
            gone = await before.packet()
            assert (gone.kind, gone.reason) == ("DISCONNECT", 0x87)
            stays.say(network.PING)
            assert (await stays.packet()).kind == "PINGRESP"
            for caller in (before, stays):
                await caller.close()

    with network.reported() as lines:
        run(main())
    assert any('reason="certificate revoked"' in line for line in lines)
    assert any(
        'event=access_ended client=before address=127.0.0.1 reason="its certificate is' in line for line in lines
    )


def test_a_new_certificate_serves_new_connections_and_the_others_stay(run, network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            port = served.port("mqtts")

            async def shown(name):
                caller = await network.call(port, notation, ssl=authority.client_context())
                serial = caller.writer.get_extra_info("peercert")["serialNumber"]
                caller.say(network.connect(name))
                await caller.packet()
                return caller, serial

            old, first = await shown("a")
            authority.make("server", "broker")
            assert await served.server.reload() == ()
            new, second = await shown("b")
            assert first != second
            authority.path("server.pem").write_text("not a certificate")
            (problem,) = await served.server.reload()
            assert "server.pem" in problem
            still, third = await shown("c")
            assert third == second
            for caller in (old, new):
                caller.say(network.PING)
                assert (await caller.packet()).kind == "PINGRESP"
            for caller in (old, new, still):
                await caller.close()

    run(main())


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http request"),
        (b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02c1", "wrong version number"),
        (b"", "closed during the handshake"),
    ],
)
def test_who_does_not_speak_tls_is_refused_and_reported(run, network, authority, tls_of, opening, reason):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            _reader, writer = await asyncio.open_connection("127.0.0.1", served.port("mqtts"))
            await network.eventually(lambda: served.links)
            writer.write(opening)
            if not opening:
                writer.close()
            await network.eventually(lambda: not served.links)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    with network.reported() as lines:
        run(main())
    assert lines == [f'event=tls_failed client="" address=127.0.0.1 reason="{reason}"']


def test_a_handshake_that_stands_still_is_cut_off(run, network, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of(), connect_timeout_s=0.5) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port("mqtts"))
            writer.write(b"\x16\x03\x01")
            start = time.monotonic()
            assert await reader.read() == b""
            assert time.monotonic() - start < 3
            assert not served.links
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    run(main())


def test_old_tls_is_refused(network, notation, authority, tls_of):
    context = load(tls_of().tls)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_that_offers_alpn_gets_mqtt(network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, options=tls_of()) as served:
            for offered, chosen in ((["mqtt"], "mqtt"), (["h2", "http/1.1"], "http/1.1"), (["x"], None)):
                context = authority.client_context()
                context.set_alpn_protocols(offered)
                caller = await network.call(served.port("mqtts"), notation, ssl=context)
                assert caller.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
                caller.say(network.connect(f"c{chosen}"))
                assert (await caller.packet()).reason == 0
                await caller.close()

    asyncio.run(main())


def test_a_slow_client_over_tls_is_noticed_and_resumed(run, network, notation, authority, tls_of):
    async def main():
        async with network.serving(
            SECURE, options=tls_of(), queue_bytes=64 << 20, total_queue_bytes=64 << 20
        ) as served:
            port = served.port("mqtts")
            slow = await network.call(port, notation, ssl=authority.client_context(), limit=1 << 14)
            slow.say(network.connect("slow"), notation.raw("82 .. 0001 () 't' 00"))
            assert [(await slow.packet()).kind for _ in range(2)] == ["CONNACK", "SUBACK"]
            (link,) = served.links
            quick = await network.call(port, notation, ssl=authority.client_context())
            quick.say(network.connect("quick"))
            await quick.packet()
            count = 0
            while not link.is_congested:
                quick.say(network.publish("t", b"x" * 60_000))
                await asyncio.sleep(0)
                count += 1
            quick.say(network.PING)
            assert (await quick.packet()).kind == "PINGRESP"
            for _ in range(count):
                assert (await slow.packet()).payload == b"x" * 60_000
            assert not link.is_congested
            await slow.close()
            await quick.close()

    run(main())


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda a: a.path("server.pem").unlink(), r"server.pem: No such file"),
        (lambda a: a.path("server.key").unlink(), r"server.key: No such file"),
        (lambda a: a.path("server.pem").write_text("x"), r"server.pem: it holds no certificate; it must be a PEM file"),
        (lambda a: a.path("server.key").write_text("x"), r"server.key: it holds no private key; it must be a PEM file"),
        (lambda a: a.make("other", "x") and a.path("other.key").replace(a.path("server.key")), "does not belong to"),
        (lambda a: a.ca.write_text("x"), r"ca.pem: .*authorities as PEM"),
        (lambda a: a.ca.unlink(), r"ca.pem: No such file"),
        (lambda a: a.path("crl.pem").write_text("x"), r"crl.pem: .*revoked certificates as PEM"),
        (lambda a: a.ca.replace(a.path("crl.pem")) and a.revoke().rename(a.ca), r"ca.pem: .*authorities as PEM"),
        (lambda a: a.path("crl.pem").write_bytes(a.ca.read_bytes()), r"crl.pem: .*revoked .* and holds none"),
        (lambda a: _encrypt(a.path("server.key")), "server.key: the key is encrypted; decrypt it"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_cure(authority, tls_of, damage, match):
    options = tls_of(ca=True, crl=authority.revoke()).tls
    damage(authority)
    with pytest.raises(CertificateError, match=match):
        load(options)


def _encrypt(path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(path.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))


def test_a_secure_listener_without_certificate_names_the_cure(network):
    async def main():
        async with network.serving() as served:
            with pytest.raises(ListenError, match=r"no certificate; name one under broker.tls, or take mqtt://"):
                await served.server.start(parse_address(SECURE))

    asyncio.run(main())


def test_a_certificate_that_cannot_be_read_names_listener_file_and_cure(network, authority, tls_of):
    async def main():
        authority.path("server.key").unlink()
        async with network.serving("mqtt://127.0.0.1:0", options=tls_of()) as served:
            with pytest.raises(ListenError, match=r"mqtts://127.0.0.1:0: .*server.key: No such file"):
                await served.server.start(parse_address(SECURE))

    asyncio.run(main())


def test_handshakes_of_many_do_not_keep_the_others_waiting(network, notation, authority, tls_of):
    async def main():
        async with network.serving(SECURE, "mqtt://127.0.0.1:0", options=tls_of()) as served:
            port, context = served.port("mqtts"), authority.client_context()
            quiet = await network.call(served.port(), notation)
            quiet.say(network.connect("quiet"))
            await quiet.packet()
            done = threading.Event()

            def flood():
                for _ in range(100):
                    with (
                        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
                        context.wrap_socket(plain, server_hostname="127.0.0.1"),
                    ):
                        pass
                done.set()

            thread = threading.Thread(target=flood)
            thread.start()
            slowest = 0.0
            while not done.is_set():
                start = time.monotonic()
                quiet.say(network.PING)
                await quiet.packet()
                slowest = max(slowest, time.monotonic() - start)
            await asyncio.to_thread(thread.join)
            assert slowest < 0.5
            await network.eventually(lambda: len(served.links) == 1)
            await quiet.close()

    asyncio.run(main())
