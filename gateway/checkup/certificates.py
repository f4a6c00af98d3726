"""Certificates and keys in PEM, taken apart. The one file of the check-up that knows cryptography."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_WEAK_HASHES = ("md5", "sha1")
_WEAK_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a check-up asks of a certificate. Times are UTC. `names`: DNS names and addresses of subjectAltName.

    `weakness`: what of its key or signature is too weak for today's TLS; empty when nothing is.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    weakness: str
    der: bytes = field(repr=False)
    _parsed: x509.Certificate = field(repr=False, compare=False)

    @property
    def is_root(self) -> bool:
        """Whether it names itself as its issuer."""
        return self.subject == self.issuer

    def is_issued_by(self, other: Certificate) -> bool:
        """Whether the other one signed this one."""
        try:
            self._parsed.verify_directly_issued_by(other._parsed)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def fits(self, key: bytes) -> bool:
        """Whether a private key in PEM is this certificate's. ValueError says why the key cannot be read."""
        try:
            private = load_pem_private_key(key, None)
        except TypeError:
            raise ValueError("the key is encrypted, and headgate has no place for its password") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("there is no private key in PEM that can be read") from None
        mine = self._parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == mine

    def covers(self, host: str) -> bool:
        """Whether one of the names is the host's: an address, a DNS name, or `*.` before one (RFC 6125, 6.4)."""
        try:
            address = ip_address(host)
        except ValueError:
            return any(_is_name_of(name.lower(), host.lower().rstrip(".")) for name in self.names)
        return str(address) in self.names


def read_chain(pem: bytes) -> list[Certificate]:
    """The certificates of a PEM file, in its order. ValueError where there is none, or one cannot be read."""
    try:
        return [_taken_apart(parsed) for parsed in x509.load_pem_x509_certificates(pem)]
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no certificate in PEM that can be read") from None


def read_one(der: bytes) -> Certificate:
    """A certificate as a peer shows it. ValueError where it cannot be read."""
    try:
        return _taken_apart(x509.load_der_x509_certificate(der))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the certificate cannot be read") from None


def crl_until(pem: bytes) -> datetime | None:
    """When a list of revoked certificates wants to be replaced by the next, if it says. ValueError: it is none."""
    try:
        return x509.load_pem_x509_crl(pem).next_update_utc
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no CRL in PEM that can be read") from None


def _taken_apart(parsed: x509.Certificate) -> Certificate:
    return Certificate(
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        names=_names(parsed),
        not_before=parsed.not_valid_before_utc.astimezone(UTC),
        not_after=parsed.not_valid_after_utc.astimezone(UTC),
        weakness=_weakness(parsed),
        der=parsed.public_bytes(Encoding.DER),
        _parsed=parsed,
    )


def _names(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _weakness(parsed: x509.Certificate) -> str:
    key = parsed.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAK_RSA_BITS:
        return f"its RSA key has {key.key_size} bits only"
    digest = parsed.signature_hash_algorithm
    if digest is not None and digest.name in _WEAK_HASHES and parsed.subject != parsed.issuer:
        return f"it is signed with {digest.name}"
    return ""


def _is_name_of(name: str, host: str) -> bool:
    if name.startswith("*."):
        _, dot, rest = host.partition(".")
        return bool(dot) and rest == name[2:]
    return name == host
