"""The open side in tests: a scripted broker behind links on virtual time (`Rig`), and servers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import ssl
from collections import Counter, deque
from dataclasses import replace

from gateway.broker.access import Open
from gateway.broker.broker import Broker
from gateway.broker.limits import Gate
from gateway.broker.link import Link
from gateway.broker.listeners import Server
from gateway.broker.logins import Logins, Opening
from gateway.broker.options import Address, Limits, Options, parse_address
from gateway.broker.report import Report
from gateway.broker.turn import Turn
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.mqtt.connection import Terms
from gateway.mqtt.packets import Connack, Disconnect, Pingreq, Pingresp, Puback, Publish
from gateway.mqtt.reasons import Reason

CONNECT = bytes.fromhex("10 0f 00 04 4d 51 54 54 05 02 00 00 00 00 02 63 31".replace(" ", ""))
"""MQTT 5.0, clean start, client c1, no keep-alive."""


def connect(client_id="c1", *, keep_alive=0, level=5, flags=2, tail=b""):
    """A CONNECT, by hand."""
    body = b"\0\4MQTT" + bytes([level, flags]) + keep_alive.to_bytes(2, "big") + (b"\0" if level == 5 else b"")
    body += len(client_id).to_bytes(2, "big") + client_id.encode() + tail
    assert len(body) < 128
    return bytes([0x10, len(body)]) + body


def login(client_id, username, password):
    """A CONNECT with user name and password."""
    fields = b"".join(len(text).to_bytes(2, "big") + text.encode() for text in (username, password))
    return connect(client_id, flags=0xC2, tail=fields)


def publish(topic="t", payload=b"x", *, qos=0, packet_id=1):
    """A PUBLISH of MQTT 5.0, by hand."""
    body = len(topic).to_bytes(2, "big") + topic.encode()
    body += packet_id.to_bytes(2, "big") if qos else b""
    body += b"\0" + payload
    length, rest = bytearray(), len(body)
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (0x80 if rest else 0))
        if not rest:
            return bytes([0x30 | qos << 1]) + bytes(length) + body


PING, PONG, BYE = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


class Script:
    """A broker that accepts everybody, acknowledges, and writes down what happens. Hooks change what it does."""

    def __init__(self, limits):
        self.terms = Terms(
            connect_bytes=limits.connect_bytes,
            maximum_packet_size=limits.packet_bytes,
            receive_maximum=limits.receive_maximum,
        )
        self.has_work = False
        self.calls = Counter()
        self.got = []
        self.log = []
        self.ahead_s = 0.0
        self.on_packet = None
        self.on_more = None
        self.on_resumed = None

    def connect(self, client, connect, now):
        self.log.append(("connect", connect.client_id))
        client.send(client.connection.send(Connack()))

    def refuse(self, client, reason, text):
        self.log.append(("refuse", reason, text))
        client.send(client.connection.send(Connack(reason=reason)))
        client.finish()

    def handle(self, client, packet, now):
        self.got.append(packet)
        if self.on_packet is not None and self.on_packet(client, packet):
            return
        if isinstance(packet, Publish) and packet.qos == 1:
            client.send(client.connection.send(Puback(packet.packet_id)))
        elif isinstance(packet, Pingreq):
            client.send(client.connection.send(Pingresp()))
        elif isinstance(packet, Disconnect):
            client.finish()

    def violated(self, client, error, now):
        self.log.append(("violated", error.reason))
        if client.connection.is_connected:
            client.send(client.connection.send(Disconnect(reason=error.reason)))
        client.finish()

    def lost(self, client, now):
        self.log.append(("lost", client.identity.client_id))

    def resumed(self, client, now):
        self.log.append(("resumed", client.identity.client_id))
        if self.on_resumed is not None:
            self.on_resumed(client)

    def idle(self, client, now):
        self.log.append(("idle", client.identity.client_id))
        client.send(client.connection.send(Disconnect(reason=Reason.KEEP_ALIVE_TIMEOUT)))
        client.finish()

    def tick(self, now, ahead_s):
        self.calls["tick"] += 1
        self.ahead_s = ahead_s

    def more(self, now):
        self.calls["more"] += 1
        return self.on_more() if self.on_more is not None else False

    def disconnect(self, client_id, reason, now):
        self.log.append(("disconnect", client_id, reason))

    def shutdown(self, now):
        self.log.append(("shutdown",))

    def access_changed(self, now):
        self.log.append(("access_changed",))


class Pipe(asyncio.Transport):
    """A transport whose peer is the test: `say` brings bytes, `heard` is what was written."""

    def __init__(self, link, address="192.0.2.1"):
        super().__init__()
        self.link = link
        self.address = address
        self.coming = deque()
        self.written = []
        self.buffered = 0
        self.is_slow = False
        self.state = "open"
        self.is_reading_now = True
        self.log = []
        self.high = 0

    @property
    def heard(self):
        return b"".join(self.written)

    def say(self, data, bite=65536):
        self.coming += [data[at : at + bite] for at in range(0, len(data), bite)]
        self._bring()

    def _bring(self):
        while self.coming and self.is_reading_now and self.state in ("open", "half"):
            piece = self.coming.popleft()
            self.link.get_buffer(-1)[: len(piece)] = piece
            self.link.buffer_updated(len(piece))

    def go(self, error=None):
        """The peer is gone."""
        if self.state != "gone":
            self.state = "gone"
            self.link.connection_lost(error)

    def drain(self):
        """The peer reads again."""
        self.is_slow = False
        self.buffered = 0
        self.link.resume_writing()

    def write(self, data):
        assert self.state == "open", f"written to a transport that is {self.state}"
        assert data
        self.written.append(bytes(data))
        if self.is_slow:
            was, self.buffered = self.buffered, self.buffered + len(data)
            if was <= self.high < self.buffered:
                self.link.pause_writing()

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_write_buffer_size(self):
        return self.buffered

    def pause_reading(self):
        assert self.is_reading_now, "paused twice"
        self.is_reading_now = False
        self.log.append("pause")

    def resume_reading(self):
        assert not self.is_reading_now, "resumed twice"
        self.is_reading_now = True
        self.log.append("resume")
        asyncio.get_running_loop().call_soon(self._bring)

    def can_write_eof(self):
        return True

    def write_eof(self):
        assert self.state == "open"
        self.state = "half"

    def close(self):
        if self.state != "gone":
            asyncio.get_running_loop().call_soon(self.go)

    def abort(self):
        if self.state != "gone":
            self.log.append("abort")
            asyncio.get_running_loop().call_soon(self.go)

    def is_closing(self):
        return self.state == "gone"

    def get_extra_info(self, name, default=None):
        return (self.address, 4711) if name == "peername" else default


class Shelf:
    """A store that writes when the test says so."""

    def __init__(self):
        self.written = 0
        self.failure = ""
        self.flushed = 0
        self.on_written = None

    def flush(self):
        self.flushed += 1


class Rig:
    """Links on pipes before a scripted broker. Made on a running loop; `settle` lets everything happen that is due."""

    def __init__(self, clock, *, access=None, store=None, **limits):
        self.limits = Limits(**limits)
        self.metrics = Metrics()
        self.report = Report(clock, self.metrics)
        self.broker = Script(self.limits)
        self.gate = Gate(self.limits)
        self.turn = Turn(
            broker=self.broker,
            store=store,
            clock=clock,
            metrics=self.metrics,
            report=self.report,
            limits=self.limits,
            gate=self.gate,
        )
        self.turn.logins = Logins(self.turn, access=access or Open(), report=self.report, metrics=self.metrics)

    def pipe(self, address="192.0.2.1", refusal=None):
        """A connection that has just come in."""
        now = self.turn.now()
        if refusal is None:
            assert self.gate.enter(address, now) is None
        else:
            assert self.gate.keep()
        opening = Opening(now + self.limits.connect_timeout_s, refusal)
        link = Link(self.turn, address=address, listener=Address("mqtt", "127.0.0.1", 1883), opening=opening)
        pipe = Pipe(link, address)
        link.connection_made(pipe)
        return pipe

    async def client(self, client_id="c1", **options):
        """A connection that was accepted; its CONNACK is forgotten."""
        pipe = self.pipe()
        pipe.say(connect(client_id, **options))
        await settle()
        assert pipe.heard[:1] == b"\x20"
        pipe.written.clear()
        return pipe

    def count(self, name):
        return self.metrics.counter(name).value

    async def close(self):
        await self.turn.logins.close()
        self.turn.close()
        for link in list(self.turn.links):
            link.transport.go()
        await settle()


async def settle(turns=20):
    """Let the loop turn."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Lines(logging.Handler):
    """What was reported."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def reported():
    """The lines of the broker's log."""
    handler = Lines()
    logger = logging.getLogger("headgate.broker")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


class Served:
    """A server with the real broker on real sockets."""

    def __init__(self, options, access=None, store=None):
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.report = Report(self.clock, self.metrics)
        self.access = access or Open()
        self.broker = Broker(
            options.limits,
            access=self.access,
            metrics=self.metrics,
            report=self.report,
            store=store,
            now=self.clock.wall_ms() / 1000,
        )
        self.server = Server(
            options,
            broker=self.broker,
            access=self.access,
            report=self.report,
            metrics=self.metrics,
            clock=self.clock,
            store=store,
        )

    def port(self, scheme="mqtt"):
        return next(address.port for address in self.server.bound if address.scheme == scheme)

    def count(self, name, **labels):
        return self.metrics.counter(name, **labels).value

    @property
    def links(self):
        return self.server._turn.links


@contextlib.asynccontextmanager
async def serving(*urls, access=None, store=None, options=None, **limits):
    """A server on these listeners (port 0 by default), closed at the end."""
    addresses = tuple(parse_address(url) for url in urls or ("mqtt://127.0.0.1:0",))
    options = replace(options or Options(listen=addresses), listen=addresses, limits=Limits(**limits))
    served = Served(options, access, store)
    try:
        for address in addresses:
            await served.server.start(address)
        yield served
    finally:
        await served.server.close()


class Caller:
    """A raw client: bytes out, packets or bytes in."""

    def __init__(self, reader, writer, notation):
        self.reader, self.writer, self.notation = reader, writer, notation

    def say(self, *data):
        self.writer.write(b"".join(data))

    async def packet(self, level=5):
        """The next packet, read strictly."""
        async with asyncio.timeout(10):
            data = await self.reader.readexactly(2)
            while data[-1] & 0x80:
                data += await self.reader.readexactly(1)
            length = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data[1:]))
            return self.notation.read(data + await self.reader.readexactly(length), level)

    async def end(self):
        """What comes until the server closes."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


async def call(port, notation, **options):
    """A raw client's connection."""
    return Caller(*await asyncio.open_connection("127.0.0.1", port, **options), notation)


async def eventually(condition, within=10.0):
    """Wait until the condition holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.005)


class Authority:
    """Makes certificates in a folder: for servers, for clients, and lists of revoked ones. EC keys: they are quick."""

    def __init__(self, folder, name="headgate test authority"):
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self.x509, self.ec, self.folder = x509, ec, folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = self._signed(builder)
        self.ca = self._write("ca.pem", self._pem(self.certificate))

    def make(self, file, common_name):
        """A certificate for 127.0.0.1 and localhost with its key; their paths."""
        from ipaddress import ip_address

        from cryptography.hazmat.primitives import serialization

        x509 = self.x509
        key = self.ec.generate_private_key(self.ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]), key)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = self._signed(builder.add_extension(x509.SubjectAlternativeName(names), critical=False))
        plain = serialization.NoEncryption()
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self._write(f"{file}.key", secret)
        self._write(f"{file}.pem", self._pem(certificate))
        return certificate

    def path(self, file):
        return self.folder / file

    def revoke(self, *certificates):
        """Write crl.pem with these."""
        from cryptography.hazmat.primitives import hashes

        x509, now = self.x509, dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - dt.timedelta(1)).next_update(now + dt.timedelta(9))
        for certificate in certificates:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return self._write("crl.pem", self._pem(builder.sign(self.key, hashes.SHA256())))

    def client_context(self, file=None):
        """A client that believes this authority, and shows that certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if file is not None:
            context.load_cert_chain(self.path(f"{file}.pem"), self.path(f"{file}.key"))
        return context

    def _builder(self, subject, key):
        now = dt.datetime.now(dt.UTC)
        builder = self.x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(self.x509.random_serial_number())
        return builder.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(9))

    def _signed(self, builder):
        from cryptography.hazmat.primitives import hashes

        return builder.sign(self.key, hashes.SHA256())

    def _pem(self, thing):
        from cryptography.hazmat.primitives import serialization

        return thing.public_bytes(serialization.Encoding.PEM)

    def _write(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path
