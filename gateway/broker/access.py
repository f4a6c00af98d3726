"""Who may enter the broker and what they may do there: what the broker asks (`Access`), and who answers.

Passwords, tokens and the ACL are checked in rooms of their own; `Guard` puts them together. Enhanced authentication
(MQTT 5.0, 4.12) enters by `Access.methods`.

A login is decided by the first that applies: a client certificate, where it gives the user name; a token, where tokens
are believed and the password looks like one; the password file, where there is one and CONNECT names a user; without a
user name, whether anonymous clients are let in. Where neither users nor tokens are set, everybody comes in under the
name they give.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

from gateway.broker import acl, passwords
from gateway.broker.acl import READ, WRITE, Acl
from gateway.broker.client import Identity
from gateway.broker.options import Options
from gateway.broker.passwords import BusyError, Checker, Passwords
from gateway.broker.tokens import TokenError, Tokens, looks_like_token
from gateway.clock import Clock
from gateway.mqtt.packets import Connect
from gateway.mqtt.reasons import Reason

T = TypeVar("T")

_LARGEST_FILE = 64 * 1024 * 1024
_WRONG = "user name or password is wrong"
"""All that a stranger is told: not which of the two, and not why a token is not believed."""
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "description": "description",
    "dnQualifier": "dnQualifier",
    "domainComponent": "DC",
    "emailAddress": "emailAddress",
    "generationQualifier": "generationQualifier",
    "givenName": "GN",
    "initials": "initials",
    "localityName": "L",
    "name": "name",
    "organizationIdentifier": "organizationIdentifier",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "postalCode": "postalCode",
    "pseudonym": "pseudonym",
    "serialNumber": "serialNumber",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "title": "title",
    "userId": "UID",
}
"""Short names of the parts of a subject by their long ones, both OpenSSL's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a connection before anybody said who it is.

    `certificate` is what `ssl.SSLObject.getpeercert()` gives, None where none was shown. `is_local`: over loopback or a
    Unix socket. `scheme` is the listener's.
    """

    address: str
    port: int = 0
    certificate: Mapping[str, Any] | None = None
    is_local: bool = False
    scheme: str = "mqtt"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A login that failed. `text` may be told to the peer, `cause` says more for the log; neither holds a secret."""

    reason: Reason
    text: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Continue:
    """Enhanced authentication goes on: `data` goes to the client in an AUTH packet (4.12)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Enhanced authentication succeeded. `data` goes to the client in CONNACK, or in AUTH after re-authentication."""

    identity: Identity
    data: bytes = b""


class Exchange(Protocol):
    """One enhanced authentication under way (4.12)."""

    def step(self, data: bytes) -> Continue | Done | Refusal:
        """Take CONNECT's authentication data (b"" where it has none), later that of each AUTH; say how it goes on."""
        ...


class Method(Protocol):
    """A method of enhanced authentication."""

    def start(self, connect: Connect, peer: Peer) -> Exchange:
        """Begin for one client; nothing has been checked yet. The first `step` follows at once."""
        ...


class Access(Protocol):
    """What the broker asks. The verdicts of `may_...` hold until `generation` changes: cache them by identity."""

    generation: int
    methods: Mapping[str, Method]

    def may_publish(self, who: Identity, topic: str) -> bool:
        """Whether a message of this client on this topic is accepted."""
        ...

    def may_read(self, who: Identity, topic: str) -> bool:
        """Whether a message on this concrete topic may be delivered to this client, on whatever way it comes."""
        ...

    def may_subscribe(self, who: Identity, filter: str) -> bool:  # noqa: A002 - the specification's word
        """Whether a filter (without `$share/name/`) can bring this client anything. False only where it never can."""
        ...

    async def login(self, connect: Connect, peer: Peer) -> Identity | Refusal:
        """Find out who is there. Takes as long as a password hash takes, never on the loop."""
        ...


class Open:
    """Anybody may enter and do anything: for tests, and for a broker that nobody but this machine can reach."""

    generation = 0
    methods: Mapping[str, Method] = MappingProxyType({})

    def may_publish(self, who: Identity, topic: str) -> bool:
        """All but what is the broker's own."""
        return who.is_gateway or not is_reserved(topic)

    def may_read(self, who: Identity, topic: str) -> bool:  # noqa: ARG002 - the Protocol's
        """Everything."""
        return True

    def may_subscribe(self, who: Identity, filter: str) -> bool:  # noqa: A002, ARG002 - the Protocol's
        """Everything."""
        return True

    async def login(self, connect: Connect, peer: Peer) -> Identity | Refusal:
        """Everybody, under the name they give, as an administrator."""
        return Identity(connect.client_id, connect.username, peer.address, is_admin=True)


class AccessError(Exception):
    """Files that say who may enter cannot be used. `problems`: a sentence each, with file, line and cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Reload:
    """What reading the files anew brought. With `problems` nothing has changed, and the files of before are in force.

    `revoked`: users that are gone or have another password. `has_new_keys`: other keys than before sign tokens.
    """

    problems: tuple[str, ...] = ()
    revoked: frozenset[str] = frozenset()
    has_new_keys: bool = False

    def ends(self, who: Identity) -> bool:
        """Whether what this client came in with is no longer good: disconnect it (0x87). It may well come in again."""
        if who.proof == "password":
            return who.username in self.revoked
        return self.has_new_keys and who.proof == "token"


@dataclass(frozen=True, slots=True)
class Files:
    """What the files of the options say; None where there is no such file. `cautions`: what works but should not be."""

    users: Passwords | None
    rules: Acl | None
    tokens: Tokens | None
    cautions: tuple[str, ...]


def read(options: Options) -> Files:
    """Read all files. AccessError names all that is wrong with any of them. Blocks on the disk."""
    problems: list[str] = []
    cautions: list[str] = []
    users = _read(options.users, passwords.parse, problems, cautions, is_secret=True)
    rules = _read(options.acl, acl.parse, problems, cautions, is_secret=False)
    tokens = None
    if (jwt := options.jwt) is not None:
        is_secret = "HS256" in jwt.algorithms
        tokens = _read(jwt.key, lambda data, _: Tokens(data, jwt), problems, cautions, is_secret=is_secret)
    if problems:
        raise AccessError(problems)
    if users is not None:
        cautions += users.cautions
    if rules is not None and rules.users and not (users or tokens or (options.tls and options.tls.identity != "none")):
        cautions.append(
            f"{options.acl}: there are rules for users, but nothing proves who is which user. "
            "Set `users`, tokens, or the identity of client certificates"
        )
    return Files(users, rules, tokens, tuple(cautions))


def _read(
    path: Path | None,
    parse: Callable[[bytes, str], T],
    problems: list[str],
    cautions: list[str],
    *,
    is_secret: bool,
) -> T | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
            mode = path.stat().st_mode
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problems.append(f"{path}: {reason}. Make the file, readable for headgate, or leave it out of the settings")
        return None
    if len(data) > _LARGEST_FILE:
        problems.append(f"{path}: larger than {_LARGEST_FILE >> 20} MiB. Name another file")
        return None
    if mode & stat.S_IWOTH or (is_secret and mode & stat.S_IRWXO):
        done = "changed" if mode & stat.S_IWOTH else "read"
        cautions.append(f"{path} can be {done} by everybody on this machine: chmod o= {path}")
    try:
        return parse(data, str(path))
    except ValueError as error:
        problems += str(error).splitlines()
        return None


class Guard:
    """The access that files and certificates give. Constructed = the files are good, else AccessError.

    Constructing reads the files. `reload` reads them anew.
    """

    def __init__(self, options: Options, *, clock: Clock, methods: Mapping[str, Method] | None = None) -> None:
        self.generation = 0
        self.methods: Mapping[str, Method] = methods or {}
        self.files = read(options)
        self._options = options
        self._clock = clock
        self._checker = Checker(self.files.users) if self.files.users is not None else None
        self._reloading = asyncio.Lock()

    def close(self) -> None:
        """Give the threads back. Logins that wait for their password to be checked are cancelled."""
        if self._checker is not None:
            self._checker.close()

    async def reload(self) -> Reload:
        """Read the files anew, off the loop, and go by them from now on if all of them are good.

        Ask `Reload.ends` of every live connection right away, without awaiting anything in between.
        """
        async with self._reloading:
            try:
                files = await asyncio.to_thread(read, self._options)
            except AccessError as error:
                return Reload(tuple(error.problems))
            before, self.files = self.files, files
            self.generation += 1
            revoked: frozenset[str] = frozenset()
            if self._checker is not None and before.users is not None and files.users is not None:
                revoked = before.users.changed(files.users)
                self._checker.take(files.users)
            has_new_keys = bool(before.tokens and files.tokens and not files.tokens.has_keys_of(before.tokens))
            return Reload((), revoked, has_new_keys)

    def may_publish(self, who: Identity, topic: str) -> bool:
        """As the ACL says; never into what is the broker's own."""
        if who.is_gateway:
            return True
        if topic.startswith("$") and is_reserved(topic):
            return False
        rules = self.files.rules
        return rules is None or rules.allows(who.username, who.client_id, topic, WRITE)

    def may_read(self, who: Identity, topic: str) -> bool:
        """As the ACL says, without one everything; `$SYS` also for administrators, and without an ACL only for them."""
        if who.is_gateway:
            return True
        if who.is_admin and is_sys(topic):
            return True
        rules = self.files.rules
        return not is_sys(topic) if rules is None else rules.allows(who.username, who.client_id, topic, READ)

    def may_subscribe(self, who: Identity, filter: str) -> bool:  # noqa: A002 - the specification's word
        """Whether there is any topic that the filter matches and the client may read."""
        if who.is_gateway:
            return True
        if who.is_admin and is_sys(filter):
            return True
        rules = self.files.rules
        return not is_sys(filter) if rules is None else rules.may_match(who.username, who.client_id, filter)

    async def login(self, connect: Connect, peer: Peer) -> Identity | Refusal:
        """Find out who is there, as the head of this file says."""
        tls, certificate = self._options.tls, peer.certificate
        if tls is not None and tls.identity != "none" and certificate:
            try:
                name = common_name(certificate) if tls.identity == "cn" else subject(certificate)
            except ValueError as error:
                cause = f"the certificate of {_shown(connect)} gives no user name: {error}"
                return Refusal(Reason.NOT_AUTHORIZED, "the certificate gives no user name", cause)
            return self._proven(connect, peer, name, "certificate")
        cause = ""
        if self.files.tokens is not None and connect.password is not None and looks_like_token(connect.password):
            try:
                bearer = self.files.tokens.check(connect.password, connect.username, self._clock.wall_ms() / 1000)
            except TokenError as error:
                cause = f"the token of {_shown(connect)} is not believed: {error}"
            else:
                return self._proven(connect, peer, bearer.username, "token", bearer.expires_at)
        if self._checker is not None and connect.username is not None:
            return await self._by_password(self._checker, connect, peer, connect.username, cause)
        if cause:
            return Refusal(Reason.BAD_USER_NAME_OR_PASSWORD, _WRONG, cause)
        return self._unproven(connect, peer)

    def _proven(
        self,
        connect: Connect,
        peer: Peer,
        username: str,
        proof: Literal["password", "token", "certificate"],
        expires_at: float | None = None,
    ) -> Identity:
        is_admin = username in self._options.admins
        return Identity(
            connect.client_id, username, peer.address, is_admin=is_admin, proof=proof, expires_at=expires_at
        )

    async def _by_password(
        self, checker: Checker, connect: Connect, peer: Peer, username: str, cause: str
    ) -> Identity | Refusal:
        if connect.password is None:
            return Refusal(Reason.BAD_USER_NAME_OR_PASSWORD, _WRONG, f"{_shown(connect)} sent no password")
        try:
            if await checker.fits(username, connect.password):
                return self._proven(connect, peer, username, "password")
        except BusyError as error:
            return Refusal(Reason.SERVER_BUSY, "too many logins at once, try again later", str(error))
        wrong = "wrong password of" if username in checker.users else "there is no"
        return Refusal(Reason.BAD_USER_NAME_OR_PASSWORD, _WRONG, cause or f"{wrong} {_shown(connect)}")

    def _unproven(self, connect: Connect, peer: Peer) -> Identity | Refusal:
        """Somebody who has shown nothing that could be checked."""
        if self.files.users is None and self.files.tokens is None:
            is_admin = peer.is_local and not peer.certificate  # nobody is asked who they are: the machine is its user's
            return Identity(connect.client_id, connect.username, peer.address, is_admin=is_admin)
        if connect.username is not None:
            return Refusal(Reason.BAD_USER_NAME_OR_PASSWORD, _WRONG, f"{_shown(connect)} sent no token")
        if self._options.anonymous:
            return Identity(connect.client_id, None, peer.address)
        cause = f"{_shown(connect)} names no user, and anonymous clients are not let in"
        return Refusal(Reason.NOT_AUTHORIZED, "a user name and a password are needed", cause)


def _shown(connect: Connect) -> str:
    """Who it claims to be, for the log."""
    if connect.username is not None:
        return f"user {connect.username[:64]!r}"
    return f"client {connect.client_id[:64]!r}"


def is_sys(topic: str) -> bool:
    """Whether a topic or filter lies in the broker's own `$SYS`."""
    return topic.startswith("$SYS") and topic[4:5] in ("", "/")


def is_reserved(topic: str) -> bool:
    """Whether nobody but the broker publishes there: `$SYS`, and `$share`, which nobody could subscribe to."""
    return is_sys(topic) or topic.startswith("$share/")


def common_name(certificate: Mapping[str, Any]) -> str:
    """The common name of a certificate, as `getpeercert` gives it. ValueError where there is not exactly one."""
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1 or not names[0] or "\0" in names[0]:
        raise ValueError(f"its subject has {len(names)} common names, or an empty one")
    return str(names[0])


def subject(certificate: Mapping[str, Any]) -> str:
    """The whole subject of a certificate as RFC 2253 writes it, like `openssl x509 -subject -nameopt RFC2253`.

    That is what mosquitto takes as user name, most special part first: `CN=pump,O=Works,C=GB`. ValueError where there
    is none, or a part whose name is not known here.
    """
    parts = []
    for part in reversed(certificate.get("subject", ())):
        fields = []
        for key, value in reversed(part):
            if key not in _SHORT:
                raise ValueError(f"its subject has a part {key!r} that is not known here")
            fields.append(f"{_SHORT[key]}={_escaped(value)}")
        parts.append("+".join(fields))
    if not parts:
        raise ValueError("it has no subject")
    return ",".join(parts)


def _escaped(value: str) -> str:
    """A value as RFC 2253, 2.4, wants it, and all but ASCII as bytes in hex."""
    text = "".join(f"\\{sign}" if sign in ',+"\\<>;' else sign if " " <= sign <= "~" else _hex(sign) for sign in value)
    if text.endswith(" "):
        text = text[:-1] + "\\ "
    return "\\" + text if text.startswith(("#", " ")) else text


def _hex(sign: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in sign.encode())
