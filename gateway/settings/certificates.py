"""When certificates and lists of revoked ones end. OpenSSL has parsed the files before; here only dates are looked for.

The few bytes are taken apart here, for the library that could do it costs a running gateway 11 MB.

    Certificate     SEQUENCE { tbs SEQUENCE { [0] version, INTEGER serial, SEQUENCE signature, SEQUENCE issuer,
                               SEQUENCE validity { notBefore, notAfter }, ... } ... }             RFC 5280, 4.1
    CertificateList SEQUENCE { tbs SEQUENCE { INTEGER version, SEQUENCE signature, SEQUENCE issuer,
                               thisUpdate, nextUpdate, ... } ... }                                RFC 5280, 5.1
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.broker.options import Tls

_BLOCK: Final = re.compile(r"-----BEGIN (CERTIFICATE|X509 CRL)-----.+?-----END \1-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""UTCTime and GeneralizedTime, as RFC 5280 has them written."""


def outdated(tls: Tls, now: datetime) -> Iterator[tuple[str, str]]:
    """What is not valid now: the key of the section that names the file, and a sentence with the cure."""
    for key, path in (("cert", tls.cert), ("ca", tls.ca), ("crl", tls.crl)):
        for kind, begins, ends in [] if path is None else periods(path):
            if begins > now:
                yield (
                    key,
                    f"{path}: not valid before {begins:%Y-%m-%d}. Set this machine's clock, or have it issued anew",
                )
            elif ends is not None and ends <= now and kind == "X509 CRL":
                yield key, f"{path}: was to be replaced by {ends:%Y-%m-%d}: clients are refused. Have a new list issued"
            elif ends is not None and ends <= now:
                whose = "clients refuse it" if key == "cert" else "whom it vouches for is refused"
                yield key, f"{path}: expired on {ends:%Y-%m-%d}: {whose}. Renew it"


def periods(path: Path) -> Iterator[tuple[str, datetime, datetime | None]]:
    """From when until when each certificate and list of a PEM file is valid, with its kind. What is neither is none."""
    for block in _BLOCK.finditer(path.read_text("latin-1")):
        text = block[0].replace("X509 CRL", "CERTIFICATE")
        try:
            times = _times(ssl.PEM_cert_to_DER_cert(text))
        except (ValueError, IndexError):  # not what OpenSSL took from the file
            continue
        yield block[1], times[0], times[1] if len(times) > 1 else None


def _times(der: bytes) -> list[datetime]:
    _, whole, _ = _element(der, 0)
    _, tbs, end = _element(der, whole)
    parts = list(_elements(der, tbs, end))
    found = [part for part in parts if part[0] in _TIMES]
    if not found:
        _, start, stop = [part for part in parts if part[0] == _SEQUENCE][2]
        found = [part for part in _elements(der, start, stop) if part[0] in _TIMES]
    return [datetime.strptime(der[a:b].decode(), _TIMES[tag]).replace(tzinfo=UTC) for tag, a, b in found]


def _elements(der: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    while at < end:
        tag, start, stop = _element(der, at)
        yield tag, start, stop
        at = stop


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the element (X.690, 8.1) that begins there."""
    size = der[at + 1]
    start = at + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start])
    return der[at], start, start + size
