"""X.509 certificates as OPC UA wants them [Part 6 6.2.2]: made, renewed and taken apart. Pure: no files, no clock.

    subject       CN=headgate@HOST, O=headgate
    SAN           URI: the application URI, the same that is sent in CreateSession [Part 4 5.7.2]; DNS: the host
    keyUsage      digitalSignature, nonRepudiation, keyEncipherment, dataEncipherment; keyCertSign: it signs itself
    extKeyUsage   clientAuth, and serverAuth, which some servers ask of whoever comes
    key, hash     RSA 2048, SHA-256: what every policy takes, the deprecated ones too [Part 7 6.6]

A certificate is called by its thumbprint, the SHA-1 of its DER [Part 6 6.7.2.3]. People compare SHA-256 as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key: TypeAlias = RSAPrivateKey

LIFETIME = timedelta(days=5 * 365)
_EARLY = timedelta(days=1)
"""A certificate begins before it was made: the server's clock may be behind ours."""
_KEY_BITS = 2048
_LONGEST_NAME = 64
"""Of a common name, in characters (RFC 5280, ub-common-name)."""
_LONGEST_TEXT = 300
"""Of a name that is shown, in characters."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate taken apart. Times are UTC. `application_uri` is empty where it names none.

    `hosts` are DNS names and addresses; `is_authority`: it may issue others, basicConstraints says so.
    """

    der: bytes = field(repr=False)
    subject: str
    issuer: str
    application_uri: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_self_signed: bool
    is_authority: bool
    parsed: x509.Certificate = field(repr=False, compare=False)

    @property
    def thumbprint(self) -> str:
        """SHA-1 of the DER, 40 hexadecimal digits: what OPC UA calls it by."""
        return thumbprint_of(self.der)

    @property
    def sha256(self) -> str:
        """SHA-256 of the DER, 64 hexadecimal digits: what people compare."""
        return hashlib.sha256(self.der).hexdigest()

    def is_issued_by(self, other: Certificate) -> bool:
        """Whether the other one signed this one."""
        return _is_issued_by(self.parsed, other.parsed)

    def fits(self, key: Key) -> bool:
        """Whether that private key is this certificate's."""
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        return self.parsed.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def thumbprint_of(der: bytes) -> str:
    """SHA-1 of a certificate's DER, in hexadecimal digits."""
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()


def leaf_of(chain: bytes) -> bytes:
    """The first certificate of a chain: they stand one after the other [Part 6 6.2.6]. The whole where it is none."""
    return next(iter(split(chain)), chain)


def split(chain: bytes) -> list[bytes]:
    """The certificates of a chain in DER, leaf first. What follows the last whole one is left out."""
    found: list[bytes] = []
    while size := _size(chain):
        found.append(chain[:size])
        chain = chain[size:]
    return found


def _size(der: bytes) -> int:
    """How many bytes the SEQUENCE at the beginning takes, with its head; 0 where there is no whole one."""
    if len(der) < 2 or der[0] != _SEQUENCE:
        return 0
    size, head = der[1], 2
    if size & 0x80:
        head += size & 0x7F
        size = int.from_bytes(der[2:head])
    return head + size if 2 <= head <= 6 and head + size <= len(der) else 0


# --- taken apart ----------------------------------------------------------------------------------------------------


def read(der: bytes) -> Certificate:
    """Take one in DER apart. Raises ValueError where it cannot be read."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        names = _names(parsed)
        return Certificate(
            der=der,
            subject=_plain(parsed.subject.rfc4514_string()),
            issuer=_plain(parsed.issuer.rfc4514_string()),
            application_uri=_plain(next(iter(names[0]), "")),
            hosts=tuple(map(_plain, names[1])),
            not_before=parsed.not_valid_before_utc.astimezone(UTC),
            not_after=parsed.not_valid_after_utc.astimezone(UTC),
            is_self_signed=_is_issued_by(parsed, parsed),
            is_authority=_is_authority(parsed),
            parsed=parsed,
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the certificate cannot be read: {error}") from None


def read_chain(data: bytes) -> list[Certificate]:
    """The certificates of a file, PEM or DER, one or a chain, in its order. Raises ValueError."""
    if b"-----BEGIN" not in data:
        ders = split(data)
    else:
        try:
            ders = [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data)]
        except (ValueError, UnsupportedAlgorithm):
            ders = []
    if not ders:
        raise ValueError("there is no certificate in it, neither PEM nor DER")
    return [read(der) for der in ders]


def read_key(data: bytes) -> Key:
    """A private key in PEM or DER. Raises ValueError with the cure."""
    try:
        load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
        key = load(data, None)
    except TypeError:
        raise ValueError("the key is encrypted, and there is no place for its password. Store it without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no private key in it, neither PEM nor DER") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the key is none of RSA, which all security policies here are made for. Take one of RSA")  # noqa: TRY004 - a wrong file, not a wrong type
    return key


def revokes(data: bytes, one: Certificate, issuer: Certificate) -> bool:
    """Whether a list of revoked certificates (PEM or DER) is that issuer's and has this one. Raises ValueError."""
    try:
        found = (x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl)(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no list of revoked certificates in it, neither PEM nor DER") from None
    key: Any = issuer.parsed.public_key()  # one that signs, for it has signed the other
    if found.issuer != issuer.parsed.subject or not found.is_signature_valid(key):
        return False
    return found.get_revoked_certificate_by_serial_number(one.parsed.serial_number) is not None


def _names(parsed: x509.Certificate) -> tuple[list[str], tuple[str, ...]]:
    """The URIs and the hosts of subjectAltName."""
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris, (*names.get_values_for_type(x509.DNSName), *addresses)


def _plain(text: str) -> str:
    """What a stranger wrote, fit for a terminal and a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_TEXT])


def _is_issued_by(parsed: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        parsed.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(parsed: x509.Certificate) -> bool:
    try:
        return parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


# --- made -----------------------------------------------------------------------------------------------------------


def make_key() -> Key:
    """A new private key. Takes a quarter of a second, on a small machine some seconds."""
    return generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def key_pem(key: Key) -> bytes:
    """The key for a file, PKCS #8 without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(der: bytes) -> bytes:
    """A certificate as text."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def make(key: Key, application_uri: str, host: str, now: datetime) -> bytes:
    """A certificate of our own, signed with its own key, in DER. Raises ValueError where the URI cannot be one."""
    subject = [
        x509.NameAttribute(NameOID.COMMON_NAME, f"headgate@{host}"[:_LONGEST_NAME]),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "headgate"),
    ]
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # "Self-signed Certificates shall also include keyCertSign" [Part 6 6.2.2]
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = x509.SubjectAlternativeName([_uri(application_uri), x509.DNSName(host)])
    extensions = [
        x509.Extension(
            x509.BasicConstraints.oid, critical=True, value=x509.BasicConstraints(ca=False, path_length=None)
        ),
        x509.Extension(x509.KeyUsage.oid, critical=True, value=usage),
        x509.Extension(
            x509.ExtendedKeyUsage.oid,
            critical=False,
            value=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
        ),
        x509.Extension(x509.SubjectAlternativeName.oid, critical=False, value=names),
        x509.Extension(
            x509.SubjectKeyIdentifier.oid,
            critical=False,
            value=x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        ),
    ]
    return _signed(key, x509.Name(subject), extensions, early(now), now + LIFETIME)


def renew(former: Certificate, key: Key, application_uri: str, *, start: datetime, now: datetime) -> bytes:
    """The same certificate, valid from `start` to five years from now, with that application URI, in DER.

    Raises ValueError where the URI cannot be one.
    """
    old = former.parsed.extensions
    extensions = [extension for extension in old if extension.oid != x509.AuthorityKeyIdentifier.oid]
    if application_uri != former.application_uri:
        names = old.get_extension_for_class(x509.SubjectAlternativeName)
        kept = [name for name in names.value if not isinstance(name, x509.UniformResourceIdentifier)]
        others: list[x509.Extension[x509.ExtensionType]] = [one for one in extensions if one.oid != names.oid]
        value = x509.SubjectAlternativeName([_uri(application_uri), *kept])
        extensions = [*others, x509.Extension(names.oid, critical=names.critical, value=value)]
    return _signed(key, former.parsed.subject, extensions, start, now + LIFETIME)


def early(now: datetime) -> datetime:
    """When a certificate that is made now begins."""
    return now - _EARLY


def _uri(application_uri: str) -> x509.UniformResourceIdentifier:
    if not _URI.fullmatch(application_uri):
        raise ValueError(f"'{application_uri}' is no URI. Write one like urn:HOST:headgate, of plain characters")
    return x509.UniformResourceIdentifier(application_uri)


def _signed(
    key: Key,
    name: x509.Name,
    extensions: Iterable[x509.Extension[Any]],
    start: datetime,
    end: datetime,
) -> bytes:
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, start, end)
    for extension in extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    issuer = x509.AuthorityKeyIdentifier(
        mark, [x509.DirectoryName(name)], serial
    )  # "should be specified" [Part 6 6.2.2]
    return builder.add_extension(issuer, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
