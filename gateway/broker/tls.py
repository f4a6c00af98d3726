"""TLS: the certificates that listeners show and believe, and the layer that carries a connection through OpenSSL.

The layer stands between a socket's transport and a `Link`; to each it looks like the other. It exists because asyncio's
own holds a buffer of 256 KiB for every connection; this one borrows the buffer that all links read into.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from gateway.broker.options import Tls
from gateway.broker.report import Report
from gateway.metrics import Counter

if TYPE_CHECKING:
    from gateway.broker.link import Link

_ALPN = ["mqtt", "http/1.1"]  # the second is what browsers offer for secure WebSocket
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_RECORD = 64 * 1024


class CertificateError(ValueError):
    """A file of certificates that cannot be used. The text names it and the cure."""


class Certificates:
    """What listeners show and believe. `context` serves new connections; those that are open keep the one they had."""

    def __init__(self, options: Tls, context: ssl.SSLContext, *, report: Report, failed: Counter) -> None:
        self.context = context
        self._options = options
        self._report = report
        self._failed = failed

    def __repr__(self) -> str:
        return f"<Certificates {self._options.cert}>"

    @classmethod
    async def read(cls, options: Tls, *, report: Report, failed: Counter) -> Self:
        """Read the files, in a thread: a disk may stall. Raises CertificateError."""
        return cls(options, await asyncio.to_thread(load, options), report=report, failed=failed)

    async def reload(self) -> None:
        """Read the files anew, for connections to come. Raises CertificateError; what was there stays in use."""
        self.context = await asyncio.to_thread(load, self._options)

    def wrap(self, link: Link) -> Layer:
        """The protocol to give a socket whose link speaks TLS."""
        return Layer(link, self.context, report=self._report, failed=self._failed)


def load(options: Tls) -> ssl.SSLContext:
    """A context for listeners. Blocks on the disk. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(_ALPN)

    def locked() -> str:
        key = options.key or options.cert
        raise CertificateError(
            f"{key}: the key is encrypted; decrypt it with `openssl pkey -in KEY -out PLAIN` and mode 0600"
        )

    try:
        context.load_cert_chain(options.cert, options.key, password=locked)
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(_why(options, error)) from error
    if options.ca is not None:
        _believe(context, options.ca, options)
    return context


def revoked(crl: Path, shown: Collection[bytes]) -> frozenset[bytes]:
    """Which of the certificates (DER) that clients have shown the lists of a file revoke. Blocks on the disk.

    Raises OSError, or ValueError where a list is not as it should be.
    """
    from cryptography import x509  # noqa: PLC0415 - only where a list is read anew

    pem = crl.read_bytes()
    lists = [x509.load_pem_x509_crl(block[0]) for block in _CRL.finditer(pem)]
    found = set()
    for der in shown:
        certificate = x509.load_der_x509_certificate(der)
        for each in lists:
            is_named = each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            if is_named and each.issuer == certificate.issuer:
                found.add(der)
    return frozenset(found)


def _believe(context: ssl.SSLContext, ca: Path, options: Tls) -> None:
    context.verify_mode = ssl.CERT_REQUIRED if options.clients == "required" else ssl.CERT_OPTIONAL
    _load(context, ca, "x509", "the certificates of authorities")
    if options.crl is not None:
        _load(context, options.crl, "crl", "a list of revoked certificates")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load(context: ssl.SSLContext, path: Path, kind: Literal["x509", "crl"], what: str) -> None:
    """OpenSSL takes certificates where a list belongs, and finds later that there is none: every client is refused."""
    before = context.cert_store_stats()[kind]
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise CertificateError(f"{path}: {_words(error)}; it must hold {what} as PEM") from error
    if context.cert_store_stats()[kind] == before:
        raise CertificateError(f"{path}: it must hold {what} as PEM, and holds none")


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.lower().replace("_", " ") if error.reason else "not readable as PEM"
    return str(error.strerror)


def _why(options: Tls, error: OSError) -> str:
    key = options.key or options.cert
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{key}: this key does not belong to the certificate {options.cert}"
    if not isinstance(error, ssl.SSLError):
        missing = [path for path in (options.cert, key) if not path.is_file()] or [options.cert, key]
        return f"{missing[0]}: {_words(error)}"
    if b"CERTIFICATE-----" not in options.cert.read_bytes():
        return f"{options.cert}: it holds no certificate; it must be a PEM file, the chain behind the certificate"
    if b"PRIVATE KEY-----" not in key.read_bytes():
        cure = "it must be a PEM file" if options.key else "put the key there too, or name its file in `key`"
        return f"{key}: it holds no private key; {cure}"
    return f"{options.cert}: {_words(error)}; certificate (its chain behind it) and key must be PEM files"


class Layer(asyncio.Transport, asyncio.BufferedProtocol):
    """Carries one link's bytes through TLS. A transport to the link, a protocol to the socket's transport.

    The handshake has no timer of its own: the link's deadline for CONNECT covers it.
    """

    __slots__ = (
        "_failed",
        "_incoming",
        "_is_open",
        "_is_over",
        "_is_paused",
        "_is_scheduled",
        "_link",
        "_object",
        "_outgoing",
        "_report",
        "_under",
    )

    def __init__(self, link: Link, context: ssl.SSLContext, *, report: Report, failed: Counter) -> None:
        super().__init__()
        self._link: Link = link
        self._report = report
        self._failed = failed
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._under: asyncio.Transport | None = None
        self._is_open = False
        self._is_over = False
        self._is_paused = False
        self._is_scheduled = False

    def __repr__(self) -> str:
        return f"<Layer {'open' if self._is_open else 'shaking hands'} of {self._link!r}>"

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there; the peer speaks first."""
        self._under = cast("asyncio.Transport", transport)
        self._link.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._under = None
        if not self._is_open and not self._is_over:
            self._say("closed during the handshake")
        self._link.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next encrypted bytes go."""
        return self._link.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Encrypted bytes came. Behind our goodbye nobody reads them."""
        if self._is_over:
            return
        self._incoming.write(self._link.turn.buffer[:nbytes])
        if self._is_open or self._shake_hands():
            self._read()

    def eof_received(self) -> None:
        """The peer sends no more, with or without TLS's own goodbye: MQTT has one of its own."""

    def pause_writing(self) -> None:
        """The socket's transport holds more than it should."""
        self._link.pause_writing()

    def resume_writing(self) -> None:
        """It takes bytes again."""
        self._link.resume_writing()

    # The link's side.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send."""
        under = self._under
        if under is None or not self._is_open or self._is_over:
            return
        sent = self._object.write(data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            sent = self._object.write(data)
        under.write(self._outgoing.read())

    def pause_reading(self) -> None:
        """Bring nothing until `resume_reading`."""
        self._is_paused = True
        if self._under is not None:
            self._under.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what is decrypted but was not taken yet first."""
        self._is_paused = False
        if self._under is not None:
            self._under.resume_reading()
            if not self._is_scheduled:
                self._is_scheduled = True
                self._link.turn.loop.call_soon(self._go_on)

    def can_write_eof(self) -> bool:
        """TLS has a goodbye; the link may still read after it."""
        return True

    def write_eof(self) -> None:
        """Say goodbye. Raises OSError where the socket is gone."""
        under = self._under
        if under is None:
            return
        self._say_goodbye(under)
        under.write_eof()

    def close(self) -> None:
        """Say goodbye and close."""
        under = self._under
        if under is not None:
            self._say_goodbye(under)
            under.close()

    def abort(self) -> None:
        """Close at once."""
        if self._under is not None:
            self._under.abort()

    def is_closing(self) -> bool:
        """Whether the socket is being closed, or gone."""
        return self._under is None or self._under.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the link is paused and resumed, in encrypted bytes."""
        if self._under is not None:
            self._under.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that wait."""
        return 0 if self._under is None else self._under.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peercert`: what the peer's certificate says; `peercert_der`: it itself; else what the socket knows."""
        if name in ("peercert", "peercert_der"):
            is_well = self._is_open and not self._is_over  # OpenSSL tells nothing of what was broken off
            return self._object.getpeercert(name == "peercert_der") if is_well else default
        return default if self._under is None else self._under.get_extra_info(name, default)

    # Between them.

    def _shake_hands(self) -> bool:
        """One step of the handshake. True when it is done."""
        under = self._under
        if under is None:
            return False
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            under.write(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(under, error)
        else:
            self._is_open = True
            under.write(self._outgoing.read())
        return self._is_open

    def _read(self) -> None:
        """Decrypt what came, and hand it to the link until that has had enough."""
        link = self._link
        buffer = link.turn.buffer
        while not self._is_paused and not self._is_over and (under := self._under) is not None:
            try:
                count = self._object.read(_RECORD, cast("bytearray", buffer))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                self.close()
                return
            except ssl.SSLError as error:
                self._fail(under, error)
                return
            if not count:  # the peer's goodbye: OpenSSL says it this way once its alert is read
                under.close()
                return
            link.buffer_updated(cast("int", count))
        if self._outgoing.pending and self._under is not None and not self._is_over:
            self._under.write(self._outgoing.read())

    def _go_on(self) -> None:
        self._is_scheduled = False
        if self._is_open:
            self._read()

    def _say_goodbye(self, under: asyncio.Transport) -> None:
        was_over, self._is_over = self._is_over, True
        if self._is_open and not was_over:
            with contextlib.suppress(ssl.SSLError):  # it wants to read the peer's goodbye, for which nobody waits
                self._object.unwrap()
            under.write(self._outgoing.read())

    def _fail(self, under: asyncio.Transport, error: ssl.SSLError) -> None:
        self._say(getattr(error, "verify_message", "") or _words(error))
        self._is_open, self._is_over = False, True
        under.write(self._outgoing.read())
        under.close()

    def _say(self, reason: str) -> None:
        self._failed.value += 1
        self._report.say("tls_failed", client_id="", address=self._link.address, reason=reason)
