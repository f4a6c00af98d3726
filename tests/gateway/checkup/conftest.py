"""An authority that issues certificates of any kind, and findings as short lines."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from gateway.mqtt.connection import Connection, Terms
from gateway.mqtt.encode import encode
from gateway.mqtt.packets import Connack, Connect, Disconnect
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason

NOW = dt.datetime(2026, 9, 27, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@dataclass
class Issued:
    certificate: x509.Certificate
    private: object

    @property
    def cert(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def key(self, password=None):
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)

    def issue(self, subject="server", *, names=("localhost",), **options):
        return issue(subject, names=names, by=self, **options)

    def crl(self, until):
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject, NOW - 9 * DAY, until)
        return builder.sign(self.private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue(subject, *, names=(), days=(-1, 365), now=NOW, private=None, ca=False, by=None):
    private = private or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    signer = by or Issued(None, private)
    issuer = name if by is None else by.certificate.subject
    builder = x509.CertificateBuilder(issuer, name, private.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.private.public_key()), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    return Issued(builder.sign(signer.private, hashes.SHA256()), private)


def _general(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def now():
    return NOW


@pytest.fixture(scope="session")
def authority():
    """An authority valid for ten years around the fixed date; `.issue(…)` issues."""
    return issue("authority", days=(-3650, 3650), ca=True)


@pytest.fixture(scope="session")
def live_authority():
    """One that is valid on the day of the test, for handshakes."""
    return issue("live", days=(-1, 3650), now=dt.datetime.now(dt.UTC), ca=True)


@pytest.fixture(scope="session")
def weak_key():
    return rsa.generate_private_key(65537, 1024)


@pytest.fixture
def shown():
    """Findings as `state: text` lines."""

    def lines(findings, *states):
        return [f"{f.state}: {f.text}" for f in findings if not states or f.state in states]

    return lines


@pytest.fixture
def serve():
    """`serve(handler, tls=None)`: a server on a free port, a thread for each connection; its port."""
    listeners, threads = [], []

    def run(handler, tls=None):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def one(sock):
            with contextlib.suppress(OSError), sock:
                sock.settimeout(10)
                if tls is None:
                    handler(sock)
                    return
                with tls.wrap_socket(sock, server_side=True) as secure:
                    handler(secure)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threads.append(threading.Thread(target=one, args=(sock,)))
                    threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return listener.getsockname()[1]

    yield run
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(20)


@pytest.fixture
def mqtt():
    """`mqtt(reason, properties, heard)`: a handler that answers CONNECT and notes it in the list `heard`."""

    def make(reason=Reason.SUCCESS, properties=None, heard=None, levels=(4, 5)):
        def handler(sock):
            connection = Connection(Terms())
            while data := sock.recv(4096):
                if data[8:9] and data[8] not in levels:
                    return
                connection.feed(data)
                for packet in connection.events():
                    if heard is not None:
                        heard.append(packet)
                    if isinstance(packet, Disconnect):
                        return
                    if isinstance(packet, Connect):
                        answer = Connack(reason=reason, properties=properties or Properties())
                        connection.send(answer)  # for its state; what it would announce is not asked here
                        sock.sendall(encode(answer, packet.level))

        return handler

    return make


@pytest.fixture
def tls(tmp_path):
    """`tls(issued, ca=None)`: a server's context with that certificate; with ca it asks for one of the client."""

    def make(issued, ca=None):
        path = tmp_path / f"server-{issued.certificate.serial_number}.pem"
        path.write_bytes(issued.cert + issued.key())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if ca is not None:
            context.load_verify_locations(cadata=ca.cert.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return make
