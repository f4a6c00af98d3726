"""Which servers' certificates are trusted, and what becomes of those that are not.

A server is trusted where its certificate itself is in trusted/, or that of an authority which issued it for the host of
the url and has not revoked it in a list (.crl) beside [Part 4 6.1.3]. Any other is put into pending/ and waits for a
person; `first_use` trusts the first one of each url, but never a second one, one that is out of date, or one that a
person has removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.certificate import Certificate
from drivers.opcua.connecting.folder import LARGEST, alone, read_bounded, take_away, write
from drivers.opcua.url import place_of
from gateway.clock import RELEASED_MS, Clock
from gateway.errors import RefusedError

State: TypeAlias = Literal["trusted", "pending"]

MOST_PENDING = 20
"""Certificates that wait for a person; whoever can reach the port of a server could else fill the medium."""
_MOST_URLS = 20
_MOST_FILES = 1000
_MOST_HOSTS = 5
_ENDINGS = (".der", ".crt", ".cer", ".pem")
_SHOWN = 12
"""Digits of a thumbprint that a person types."""


class UntrustedError(RefusedError):
    """The server's certificate is not trusted. The text says what to compare, and how to approve it.

    `cause` is what the standard calls it; `thumbprint` its SHA-1 in hexadecimal digits, empty where it cannot be read.
    `is_changed`: another certificate is trusted for that server.
    """

    def __init__(
        self, text: str, *, thumbprint: str = "", is_changed: bool = False, cause: str = "BadCertificateUntrusted"
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.thumbprint = thumbprint
        self.is_changed = is_changed


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of how a certificate came here: the urls of servers that showed it, and since when it is here.

    `why`: unknown, changed, elsewhere, out_of_date, revoked, asked (for) or removed where it waits, first_use or
    approved where it is trusted; empty where it was put there by hand.
    """

    urls: tuple[str, ...] = ()
    since: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A server's certificate in the folder."""

    certificate: Certificate
    state: State
    path: Path
    note: Note = field(default=Note())


class TrustList:
    """The folders trusted/ and pending/."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    # --- asked by a connection --------------------------------------------------------------------------------------

    def check(self, chain: bytes, *, url: str, trust: Literal["approved", "first_use"]) -> str:
        """Whether a server with that certificate may be talked to; gives a caution for the log, empty mostly.

        Raises UntrustedError where not, RefusedError where the folder cannot be used.
        """
        shown = _shown(chain, url)
        leaf = shown[0]
        trusted = list(self._entries("trusted"))
        known = next((entry for entry in trusted if entry.certificate.der == leaf.der), None)
        if known is not None:
            another = any(url in entry.note.urls for entry in trusted) and url not in known.note.urls
            self._note_url(known, url)
            return _swapped(known, url) if another else self._caution(leaf, url)
        path = _path_of(shown, [entry.certificate for entry in trusted])
        is_revoked = self._is_revoked(path)
        elsewhere = _elsewhere(leaf, url) if path else ""
        if path and not (is_revoked or elsewhere or any(map(self._out_of_date, path))):
            return ""
        is_changed = any(url in entry.note.urls for entry in trusted)
        waiting = self._path(leaf.thumbprint, "pending")
        was_removed = _note_of(waiting).why == "removed"
        if trust == "first_use" and not (is_changed or was_removed or is_revoked or self._out_of_date(leaf)):
            self._put(leaf, "trusted", Note((url,), self._moment(), "first_use"))
            take_away(waiting, _beside(waiting))
            return f"{url}: its certificate came first and is trusted from now on: {_called(leaf)}"
        late = self._out_of_date(leaf)
        wrong = "was revoked" if is_revoked else late or elsewhere
        reasons = {"changed": is_changed, "revoked": is_revoked, "out_of_date": late, "elsewhere": elsewhere}
        why = next((reason for reason, holds in reasons.items() if holds), "unknown")
        cure = f"headgate trust FILE --approve {leaf.thumbprint[:_SHOWN]}"
        try:
            self.put_aside(leaf, url, why)
        except RefusedError as error:
            cure = f"headgate trust FILE, as somebody who may write there ({error})"
        raise _refusal(leaf, url, wrong, cure, is_changed=is_changed)

    def _is_revoked(self, path: Sequence[Certificate]) -> bool:
        """Whether a list in trusted/ says that one of them counts no more. Without a list nothing is revoked."""
        for file in self._files("trusted", (".crl",)):
            try:
                data = read_bounded(file)
                if any(certificates.revokes(data, one, above) for one, above in pairwise(path)):
                    return True
            except FileNotFoundError:
                continue
            except ValueError as error:  # who is revoked cannot be known then
                raise RefusedError(f"{file}: {error}. Take it out, or put a whole one there") from None
        return False

    def _caution(self, leaf: Certificate, url: str) -> str:
        if not self._is_clock_set:
            return (
                f"{url}: this machine's clock says {self._now:%Y-%m-%d}, so nobody can tell whether certificates are "
                "still valid; they are taken as if they were. Set the clock, by NTP best"
            )
        wrong = self._out_of_date(leaf)
        cure = "It is trusted all the same, for it was approved; renew it at the server"
        return f"{url}: the server's certificate {wrong}. {cure}" if wrong else ""

    def _out_of_date(self, leaf: Certificate) -> str:
        """What is wrong with the certificate's validity; empty where nothing is, or the clock cannot tell."""
        if not self._is_clock_set:
            return ""
        if self._now > leaf.not_after:
            return f"has ended on {leaf.not_after:%Y-%m-%d}"
        if self._now < leaf.not_before:
            return (
                f"begins only on {leaf.not_before:%Y-%m-%d %H:%M} UTC: the server's clock is ahead, or ours is behind"
            )
        return ""

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)

    @property
    def _is_clock_set(self) -> bool:
        return self._clock.wall_ms() >= RELEASED_MS

    # --- asked by a person ------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All certificates of servers: those that wait first, then the trusted ones; each sort by name."""
        return [*self._entries("pending"), *self._entries("trusted")]

    def faults(self) -> list[str]:
        """Files in the two folders that are no certificates, and what is wrong with them."""
        found = []
        for state in ("pending", "trusted"):
            for path in self._files(state):
                try:
                    _read(path)
                except (ValueError, RefusedError) as error:
                    found.append(f"{path}: {error}" if isinstance(error, ValueError) else str(error))
        return found

    def look_at(self, chain: bytes, url: str) -> Entry:
        """What is known of a certificate that a server was asked for; where nothing is, it waits from now on.

        Raises UntrustedError where it cannot be read, RefusedError where the folder cannot be written.
        """
        leaf = _shown(chain, url)[0]
        found = next((entry for entry in self._entries("trusted") if entry.certificate.der == leaf.der), None)
        if found is not None:
            self._note_url(found, url)
            return found
        is_changed = any(url in entry.note.urls for entry in self._entries("trusted"))
        self.put_aside(leaf, url, "changed" if is_changed else "asked")
        path = self._path(leaf.thumbprint, "pending")
        return Entry(leaf, "pending", path, _note_of(path))

    def put_aside(self, leaf: Certificate, url: str, why: str) -> None:
        """Let a certificate wait for a person. Where it waits already, only a new url is noted."""
        path = self._path(leaf.thumbprint, "pending")
        if path.exists():
            self._note_url(Entry(leaf, "pending", path, _note_of(path)), url)
            return
        with alone(self._folder):
            self._put(leaf, "pending", Note((url,), self._moment(), why))
            files = sorted((old for old in self._files("pending") if old != path), key=_age)
            for old in files[: max(0, len(files) + 1 - MOST_PENDING)]:
                take_away(old, _beside(old))

    def approve(self, entry: Entry) -> Entry:
        """Trust a certificate that waits."""
        note = Note(entry.note.urls, self._moment(), "approved")
        path = self._put(entry.certificate, "trusted", note)
        take_away(entry.path, _beside(entry.path))
        return Entry(entry.certificate, "trusted", path, note)

    def remove(self, entry: Entry) -> None:
        """Trust a certificate no more: it waits again. One that waits already is forgotten."""
        if entry.state == "trusted":
            self._put(entry.certificate, "pending", Note(entry.note.urls, self._moment(), "removed"))
        take_away(entry.path, _beside(entry.path))

    # --- files ------------------------------------------------------------------------------------------------------

    def _entries(self, state: State) -> Iterator[Entry]:
        for path in self._files(state):
            with suppress(ValueError, RefusedError, FileNotFoundError):
                yield Entry(_read(path), state, path, _note_of(path))

    def _files(self, state: State, endings: Sequence[str] = _ENDINGS) -> Sequence[Path]:
        try:
            files = sorted(path for path in (self._folder / state).iterdir() if path.suffix.lower() in endings)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise RefusedError(
                f"{self._folder / state}: {(error.strerror or str(error)).lower()}. Run this as the gateway's user"
            ) from error
        return [path for path in files if not path.name.startswith(".")][:_MOST_FILES]

    def _path(self, thumbprint: str, state: State) -> Path:
        return self._folder / state / f"{thumbprint}.der"

    def _put(self, leaf: Certificate, state: State, note: Note) -> Path:
        path = self._path(leaf.thumbprint, state)
        write(_beside(path), _json(note))
        write(path, leaf.der)
        return path

    def _note_url(self, entry: Entry, url: str) -> None:
        """Remember that a server of that url has shown this certificate: it is known then when it changes."""
        if url and url not in entry.note.urls:
            urls = (*entry.note.urls, url)[-_MOST_URLS:]
            with suppress(RefusedError):  # the folder may be written by others only: the trust itself is settled
                write(_beside(entry.path), _json(Note(urls, entry.note.since, entry.note.why)))

    def _moment(self) -> str:
        return f"{self._now:%Y-%m-%dT%H:%M:%SZ}"


def _swapped(known: Entry, url: str) -> str:
    """Both are trusted, so it is talked to; that it is the right one of them nobody has said."""
    there = f", as {', '.join(known.note.urls)} did" if known.note.urls else ""
    return (
        f"{url}: the server shows another trusted certificate than before{there}: {_called(known.certificate)}. Look "
        "whether two servers have changed places"
    )


def _refusal(leaf: Certificate, url: str, wrong: str, cure: str, *, is_changed: bool) -> UntrustedError:
    if is_changed:
        what = (
            "the server shows another certificate than the one that is trusted: it was renewed, or the server was "
            "replaced, or somebody is in between"
        )
    else:
        what = "the server's certificate is not trusted yet"
    return UntrustedError(
        f"{url}: {what}{f', and it {wrong}' if wrong else ''}. It is {_called(leaf)}. Compare this with what the "
        f"server itself shows; where it is the same: {cure}",
        thumbprint=leaf.thumbprint,
        is_changed=is_changed,
    )


def _shown(chain: bytes, url: str) -> list[Certificate]:
    """What the server shows, leaf first. Raises UntrustedError where the leaf cannot be read."""
    if not chain:
        text = f"{url}: the server shows no certificate. Write security: none if it has none, nothing is signed then"
        raise UntrustedError(text, cause="BadCertificateInvalid")
    try:
        if len(chain) > LARGEST:
            raise ValueError(f"the certificate has {len(chain)} bytes")  # noqa: TRY301 - the same end as what cannot be read
        ders = certificates.split(chain) or [chain]
        shown = [certificates.read(ders[0])]
    except ValueError as error:
        text = f"{url}: {error}. Make a new certificate at the server"
        raise UntrustedError(text, cause="BadCertificateInvalid") from None
    with suppress(ValueError):  # those above it help to trust it, or they do not
        shown += map(certificates.read, ders[1:])
    return shown


def _elsewhere(leaf: Certificate, url: str) -> str:
    """What is wrong with the hosts of a certificate that an authority issued: it issues them to others too.

    Who has the key of any of them could else be every server [Part 4 6.1.3].
    """
    host = place_of(url).host
    if host in (one.lower() for one in leaf.hosts):
        return ""
    return f"was issued for {', '.join(leaf.hosts[:_MOST_HOSTS]) or 'no host'}, not for {host}"


def _path_of(shown: Sequence[Certificate], trusted: Sequence[Certificate]) -> list[Certificate]:
    """From the leaf by those that the server shows above it up to a trusted authority; empty where there is no way."""
    if shown[0].is_self_signed:  # with a key that is trusted, too: a changed certificate is for a person to judge
        return []
    authorities = [one for one in trusted if one.is_authority and not one.application_uri]
    path: list[Certificate] = []
    for one in shown:
        if path and not (one.is_authority and path[-1].is_issued_by(one)):
            return []
        path.append(one)
        if found := next((each for each in authorities if one.is_issued_by(each)), None):
            return [*path, found]
    return []


def _called(leaf: Certificate) -> str:
    return f"'{leaf.subject}', thumbprint (SHA-1) {leaf.thumbprint}, SHA-256 {leaf.sha256}"


def _read(path: Path) -> Certificate:
    """Raises ValueError, RefusedError and FileNotFoundError."""
    return certificates.read_chain(read_bounded(path))[0]


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _age(path: Path) -> tuple[bool, float]:
    """Oldest first; what a person has removed stays longest, for `first_use` must not trust it again."""
    with suppress(OSError):
        return _note_of(path).why == "removed", path.stat().st_mtime
    return False, 0.0


def _json(note: Note) -> bytes:
    return orjson.dumps({"urls": note.urls, "since": note.since, "why": note.why})


def _note_of(path: Path) -> Note:
    """What stands beside a certificate; nothing where it was put there by hand."""
    try:
        found: Any = orjson.loads(read_bounded(_beside(path)))
        urls = tuple(url for url in found["urls"] if isinstance(url, str))[:_MOST_URLS]
        return Note(urls, str(found["since"]), str(found["why"]))
    except (OSError, RefusedError, ValueError, TypeError, KeyError):
        return Note()
