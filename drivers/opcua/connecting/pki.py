"""The folder of certificates: our own with its key, the servers' that are trusted, and those that wait for a person.

    own/certificate.der   ours; .pem where it was brought so. A chain is allowed, ours first
    own/key.pem           its private key, 0600; .der likewise
    own/former.der        ours before it was renewed: the same key, for servers that were not told of the new one
    trusted/SHA1.der      servers' certificates that are approved, and whatever else is put there by hand
    pending/SHA1.der      servers' certificates that somebody must look at; .json beside says where and when they came

Nothing here awaits: call it in a thread, for a key takes seconds to make on a small machine.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.certificate import Certificate, Key
from drivers.opcua.connecting.folder import alone, is_open_to_others, is_there, read_bounded, write
from drivers.opcua.connecting.trusting import TrustList, UntrustedError
from drivers.opcua.url import place_of
from gateway.clock import RELEASED_MS, Clock
from gateway.errors import RefusedError

__all__ = ["RENEWED_BEFORE", "Own", "Pki", "UntrustedError"]

RENEWED_BEFORE = timedelta(days=60)
"""How long before its end our certificate is renewed: time enough for the servers to be told."""
_NEWCOMER = timedelta(days=30)
"""A certificate younger than this may not be known to the servers yet: the one before it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A certificate of ours that can be used.

    `certificate` is DER, the leaf alone; `chain` the DER of the leaf and of those it came with, one after the other:
    what is sent [Part 6 6.2.6]. `key` is the private key, PEM without a password, however it is stored.
    `application_uri` is what the certificate says, which is what must be sent [Part 4 5.7.2]. `is_new`: it was made or
    renewed just now, no server has ever seen it. `cautions` are what a person should know, with the cure.
    """

    certificate: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    certificate_path: Path
    key_path: Path
    application_uri: str
    subject: str
    issuer: str
    hosts: tuple[str, ...]
    thumbprint: str
    sha256: str
    not_before: datetime
    not_after: datetime
    is_new: bool = False
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pair:
    """What is in own/."""

    chain: tuple[Certificate, ...]
    key: Key
    certificate_path: Path
    key_path: Path

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]


class Pki:
    """A folder of certificates; made when it is first needed. All of it may be used from any thread."""

    def __init__(self, folder: Path, application_uri: str | None, *, clock: Clock) -> None:
        self.folder = folder
        self.servers = TrustList(folder, clock=clock)
        self._application_uri = application_uri
        self._clock = clock

    def check(self, der: bytes, *, url: str, trust: Literal["approved", "first_use"]) -> str:
        """Whether a server's certificate (or chain, leaf first) may be talked to; gives a caution, empty mostly.

        Raises UntrustedError, after the certificate was put where `headgate trust` finds it; RefusedError where the
        folder cannot be used.
        """
        return self.servers.check(der, url=place_of(url).url, trust=trust)

    def own(self) -> Own:
        """Our certificate: made where there is none, renewed 60 days before its end. Raises RefusedError."""
        pair = self._load()
        if pair is not None and not self._is_due(pair):
            return self._told(pair)
        try:
            return self._remade()
        except RefusedError as error:
            if pair is None or self._now >= pair.leaf.not_after:
                raise
            own = self._told(pair)  # its days are counted, not over
            return replace(own, cautions=(*own.cautions, f"the certificate should be renewed, but {error}"))

    def seen(self) -> Own | None:
        """Our certificate as it is now; nothing is made or renewed. Raises RefusedError where it cannot be used."""
        pair = self._load()
        return None if pair is None else self._told(pair)

    def renew(self) -> Own:
        """Our certificate, renewed now: with the same key, and the application URI of the file. Raises RefusedError."""
        return self._remade(is_wanted=True)

    def former(self) -> Own | None:
        """Our certificate before the last renewal, as long as it is valid: for a server that refuses the new one."""
        pair = self._load()
        if pair is None:
            return None
        found = self._former(pair)
        return None if found is None or found.leaf.der == pair.leaf.der else _own(found)

    # --- what is there ----------------------------------------------------------------------------------------------

    def _load(self) -> _Pair | None:
        """What is in own/; None where there is no certificate. Raises RefusedError where it cannot be used."""
        at = self._the("certificate", (".der", ".pem"))
        if at is None:
            return None
        key_at = self._the("key", (".pem", ".der"))
        if key_at is None:
            raise RefusedError(
                f"{at}: its private key is not beside it. Put it there as key.pem, or take the certificate out, then a "
                "new pair is made"
            )
        chain = self._read_chain(at)
        pair = _Pair(chain, self._read_key(key_at), at, key_at)
        if not pair.leaf.fits(pair.key):
            raise RefusedError(
                f"{at}: {key_at.name} is not the key of this certificate. Put those two there that belong"
            )
        if not pair.leaf.application_uri:
            raise RefusedError(
                f"{at}: the certificate has no application URI: servers answer BadCertificateUriInvalid. Have one "
                "issued with a URI in subjectAltName, or take both files out, then a pair is made"
            )
        return pair

    def _the(self, name: str, endings: tuple[str, str]) -> Path | None:
        """The file of that name, however it ends. Raises RefusedError where it is there twice."""
        found = [path for ending in endings if is_there(path := self.folder / "own" / f"{name}{ending}")]
        if len(found) > 1:
            raise RefusedError(f"{found[0]}: {found[1].name} is there as well. Take one of the two out")
        return found[0] if found else None

    def _read_chain(self, path: Path) -> tuple[Certificate, ...]:
        try:
            return tuple(certificates.read_chain(_bytes_of(path)))
        except ValueError as error:
            raise RefusedError(f"{path}: {error}") from None

    def _read_key(self, path: Path) -> Key:
        try:
            return certificates.read_key(_bytes_of(path))
        except ValueError as error:
            raise RefusedError(f"{path}: {error}") from None

    def _former(self, pair: _Pair) -> _Pair | None:
        """The former certificate, where there is one that still can be used with that key."""
        path = self._former_path
        try:
            chain = tuple(certificates.read_chain(read_bounded(path)))
        except (ValueError, RefusedError, FileNotFoundError):
            return None
        is_usable = chain[0].application_uri and chain[0].fits(pair.key) and self._now < chain[0].not_after
        return replace(pair, chain=chain, certificate_path=path) if is_usable else None

    @property
    def _former_path(self) -> Path:
        return self.folder / "own" / "former.der"

    # --- made and renewed -------------------------------------------------------------------------------------------

    def _is_due(self, pair: _Pair) -> bool:
        """Whether it is time to renew it, which only whoever issued a certificate can."""
        return pair.leaf.is_self_signed and self._now >= pair.leaf.not_after - RENEWED_BEFORE

    def _remade(self, *, is_wanted: bool = False) -> Own:
        """Make it or renew it, unless somebody else did meanwhile. Raises RefusedError."""
        with alone(self.folder / "own"):
            pair = self._load()
            try:
                if pair is None:
                    self._make()
                elif is_wanted or self._is_due(pair):
                    self._renew(pair)
                else:
                    return self._told(pair)
            except ValueError as error:
                raise RefusedError(f"application_uri: {error}") from None
            made = self._load()
        if made is None:
            raise RefusedError(f"{self.folder / 'own'}: somebody empties the folder while it is filled. Leave it alone")
        return replace(self._told(made), is_new=True)

    def _make(self) -> None:
        key_at = self._the("key", (".pem", ".der"))
        key = certificates.make_key() if key_at is None else self._read_key(key_at)
        host = _host()
        uri = self._application_uri or f"urn:{host}:headgate"
        der = certificates.make(key, uri, host, self._now)
        if key_at is None:
            write(self.folder / "own" / "key.pem", certificates.key_pem(key))
        write(self.folder / "own" / "certificate.der", der)

    def _renew(self, pair: _Pair) -> None:
        leaf = pair.leaf
        if not leaf.is_self_signed:
            raise RefusedError(
                f"{pair.certificate_path}: it was issued by '{leaf.issuer}', who alone can renew it. Put the new one "
                "in its place"
            )
        # A clock nobody vouches for may be years ahead: what begins where the old one began is valid at any rate.
        start = certificates.early(self._now) if self._clock.state() == "synced" else leaf.not_before
        uri = self._application_uri or leaf.application_uri
        der = certificates.renew(leaf, pair.key, uri, start=start, now=self._now)
        is_newcomer = self._now - leaf.not_before < _NEWCOMER
        if not (is_newcomer and self._former(pair)):
            write(self._former_path, leaf.der)
        is_pem = b"-----BEGIN" in _bytes_of(pair.certificate_path)
        write(pair.certificate_path, certificates.pem(der) if is_pem else der)

    # --- told -------------------------------------------------------------------------------------------------------

    def _told(self, pair: _Pair) -> Own:
        return replace(_own(pair), cautions=tuple(self._cautions(pair)))

    def _cautions(self, pair: _Pair) -> list[str]:
        leaf, found = pair.leaf, []
        if self._application_uri not in (None, leaf.application_uri):
            found.append(
                f"the file says application_uri {self._application_uri}, the certificate {leaf.application_uri}, which "
                "is what servers are told. Take it out of the file, or: headgate certificate FILE --renew"
            )
        if is_open_to_others(pair.key_path):
            found.append(f"{pair.key_path}: others can read the private key. Run chmod 600 {pair.key_path}")
        if not self._is_clock_set:
            found.append(
                f"this machine's clock says {self._wall:%Y-%m-%d}, which cannot be: nobody can tell here how long the "
                "certificate is valid, or renew it in time. Set the clock, by NTP best"
            )
        elif self._now < leaf.not_before:
            found.append(
                f"the certificate begins only on {leaf.not_before:%Y-%m-%d}: this machine's clock is behind, or was "
                "ahead when it was made. Set the clock, then: headgate certificate FILE --renew"
            )
        elif self._now >= leaf.not_after - RENEWED_BEFORE:
            cure = (
                "Renew it: headgate certificate FILE --renew" if leaf.is_self_signed else f"Ask '{leaf.issuer}' for one"
            )
            verb = "has ended" if self._now >= leaf.not_after else "ends"
            found.append(f"the certificate {verb} on {leaf.not_after:%Y-%m-%d}. {cure}")
        return found

    @property
    def _wall(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)

    @property
    def _now(self) -> datetime:
        """The time; where the clock was never set (no battery, no network yet), the least it can be."""
        return datetime.fromtimestamp(max(self._clock.wall_ms(), RELEASED_MS) / 1000, UTC)

    @property
    def _is_clock_set(self) -> bool:
        return self._clock.wall_ms() >= RELEASED_MS


def _own(pair: _Pair) -> Own:
    leaf = pair.leaf
    return Own(
        certificate=leaf.der,
        chain=b"".join(one.der for one in pair.chain),
        key=certificates.key_pem(pair.key),
        certificate_path=pair.certificate_path,
        key_path=pair.key_path,
        application_uri=leaf.application_uri,
        subject=leaf.subject,
        issuer=leaf.issuer,
        hosts=leaf.hosts,
        thumbprint=leaf.thumbprint,
        sha256=leaf.sha256,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return read_bounded(path)
    except FileNotFoundError:
        raise RefusedError(f"{path}: it was taken away just now. Try again") from None


def _host() -> str:
    """This machine's name, of characters that a name in a certificate may have."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", socket.gethostname()).strip("-.") or "localhost"
