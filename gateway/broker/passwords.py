"""Users and their password hashes, in the format of mosquitto's password file.

    user:$6$SALT$HASH                              SHA-512 over password and salt: mosquitto 1
    user:$7$ITERATIONS$SALT$HASH                   PBKDF2 with SHA-512: mosquitto 2.0
    user:$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH    argon2id: mosquitto 2.1, and what `headgate passwd` writes

A line that starts with # and a line without : are skipped. Blanks around user and hash do not count. Passwords are
bytes, as MQTT sends them, and compared as such. argon2-cffi is imported only when a file needs it.

A password never stands in a message, a repr or a log; neither does what a line holds behind the user's name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

Hash = Literal["argon2id", "pbkdf2"]

_DIGEST = 64
"""Bytes of SHA-512, which $6$ and $7$ end in."""
_WEAK_ITERATIONS = 10_000
_MOST_ITERATIONS = 10_000_000
_MOST_KIB, _MOST_PASSES, _MOST_LANES = 1024 * 1024, 100, 64
_ITERATIONS = 210_000
_SALT_PBKDF2 = 12
"""mosquitto 2.0 takes no other length."""
_KIB, _PASSES, _SALT_ARGON2, _HASH_ARGON2 = 19 * 1024, 2, 16, 32
"""19 MiB, 2 passes: the weakest that OWASP recommends, and what a computer with 512 MiB can spare twice at a time."""
_LONGEST = 65_535
_MOST_MISTAKES = 20


class BusyError(Exception):
    """So many logins wait for their password to be checked that this one does not queue up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One user's hash. `text` is as in the file, `kind` what stands between the first two $, `cost` how hard it is.

    `cost`: 1 for $6$, iterations for $7$, KiB for argon2id.
    """

    line: int
    kind: Literal["6", "7", "argon2id"]
    cost: int
    text: str = field(repr=False)
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def is_weak(self) -> bool:
        """Whether who steals the file finds passwords fast."""
        return self.kind != "argon2id" and self.cost < _WEAK_ITERATIONS

    def fits(self, password: bytes) -> bool:
        """Whether it is the password. Takes up to some 0.1 s, with the interpreter's lock released for most of it."""
        if self.kind == "6":
            found = hashlib.sha512(password + self.salt).digest()
        elif self.kind == "7":
            found = hashlib.pbkdf2_hmac("sha512", password, self.salt, self.cost)
            if b"\0" in password:  # HMAC pads with NUL and would take `secret\0` for `secret`; mosquitto hashes none
                return False
        else:
            return _fits_argon2(self.text, password)
        return hmac.compare_digest(found, self.digest)


class Passwords:
    """The users of one file. Made by `parse`. `cautions`: sentences about what works but should be mended."""

    def __init__(self, entries: dict[str, Entry], cautions: Iterable[str] = ()) -> None:
        self.cautions = tuple(cautions)
        self._entries = entries
        self._names = sorted(entries)
        self._key = os.urandom(32)

    def __repr__(self) -> str:
        return f"<Passwords of {len(self._entries)} users>"

    def __contains__(self, username: str) -> bool:
        return username in self._entries

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """Users and their entries in the order of the file."""
        return iter(self._entries.items())

    def changed(self, newer: Passwords) -> frozenset[str]:
        """The users that are gone from a newer file, or have another password there."""
        gone = {name for name in self._entries if name not in newer}
        return frozenset(gone | {n for n, e in newer if n in self and self._entries[n].text != e.text})

    def fits(self, username: str, password: bytes) -> bool:
        """Whether this user exists and it is the password. Works for a name as hard whether it exists or not."""
        entry = self._entries.get(username)
        if entry is not None:
            return entry.fits(password)
        if self._names:  # always the same stranger's hash for a name, so that asking again tells nothing
            number = int.from_bytes(hmac.digest(self._key, username.encode(), "sha256")[:8], "big")
            self._entries[self._names[number % len(self._names)]].fits(password)
        return False

    def mark(self, username: str, password: bytes) -> bytes | None:
        """What a right answer for these can be remembered by: worthless without this object's random key."""
        entry = self._entries.get(username)
        if entry is None:
            return None
        parts = (username.encode(), entry.text.encode(), password)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


class Checker:
    """Checks passwords in threads of its own, a few at a time, and remembers the right answers of the current file.

    Devices come back all at once when a switch restarts, with the same passwords as before: those are not hashed again.
    What is remembered is a keyed hash of user, stored hash and password; a wrong password is never remembered.
    `workers` leaves the loop a processor, and bounds the memory that argon2 takes. More than `waiting` are turned away.
    """

    def __init__(
        self, users: Passwords, *, workers: int | None = None, waiting: int = 1_000, most: int = 10_000
    ) -> None:
        self.users = users
        self.hashed = 0
        """How many passwords were hashed."""
        self._right: dict[bytes, None] = {}
        self._most = most
        self._waiting = 0
        self._most_waiting = waiting
        self._pool = ThreadPoolExecutor(workers or max(1, min(2, (os.cpu_count() or 1) - 1)), "broker-password")

    def take(self, users: Passwords) -> None:
        """Go on with another file. Checks that are under way are repeated with it."""
        self.users = users
        self._right.clear()

    def close(self) -> None:
        """Let the threads end. Checks that wait are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def fits(self, username: str, password: bytes) -> bool:
        """Whether the user exists, in the file that is current when the answer comes, and it is the password.

        Raises BusyError.
        """
        while True:
            users = self.users
            mark = users.mark(username, password)
            if mark is not None and mark in self._right:
                return True
            is_right = await self._hash(users, username, password)
            if users is self.users:
                break
        if is_right and mark is not None:
            if len(self._right) >= self._most:
                del self._right[next(iter(self._right))]
            self._right[mark] = None
        return is_right

    async def _hash(self, users: Passwords, username: str, password: bytes) -> bool:
        if self._waiting >= self._most_waiting:
            raise BusyError(f"{self._waiting} logins wait for their password to be checked")
        self._waiting += 1
        self.hashed += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, users.fits, username, password)
        finally:
            self._waiting -= 1


def parse(data: bytes, file: str) -> Passwords:
    """Read a password file. Raises ValueError with a line `file:number: what, and the cure` for each mistake."""
    entries: dict[str, Entry] = {}
    cautions = []
    mistakes = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        if raw.startswith(b"#") or not raw.strip():
            continue
        if b":" not in raw:
            cautions.append(f"{file}:{number}: the line has no `:` and is skipped. A line is USER:HASH")
            continue
        try:
            _add(entries, number, raw, file)
        except ValueError as error:
            mistakes.append(f"{file}:{number}: {error}")
            if len(mistakes) == _MOST_MISTAKES:
                break
    if mistakes:
        raise ValueError("\n".join(mistakes))
    if weak := sum(entry.is_weak for entry in entries.values()):
        cautions.append(
            f"{file}: {weak} of {len(entries)} hashes are weak ($6$, or $7$ with less than {_WEAK_ITERATIONS} "
            f"iterations): who gets the file finds the passwords fast. Write them anew: headgate passwd {file} USER"
        )
    return Passwords(entries, cautions)


def _add(entries: dict[str, Entry], line: int, raw: bytes, file: str) -> None:
    """Add the user of a line. ValueError says what is wrong with it."""
    username, text = _split(raw)
    if (first := entries.get(username)) is not None:
        raise ValueError(f"user {username!r} stands in line {first.line} already. Delete one of the two lines")
    try:
        entries[username] = _entry(line, text)
    except ValueError as error:
        raise ValueError(f"user {username!r}: {error}. Write it anew: headgate passwd {file} USER") from None


def _split(raw: bytes) -> tuple[str, str]:
    """A line's user and hash. ValueError says what is wrong, and does not quote what may be a password."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ValueError("the file starts with a byte order mark. Save it as UTF-8 without one")
    name, _, text = raw.partition(b":")
    try:
        username = name.decode().strip(" \t\r\v\f")
    except UnicodeDecodeError:
        raise ValueError("the user name is not UTF-8. Save the file as UTF-8") from None
    if not username:
        raise ValueError("the user name is missing. A line is USER:HASH")
    if len(name) > _LONGEST:
        raise ValueError(f"the user name is longer than {_LONGEST} bytes. Choose a shorter one")
    return username, text.strip().decode("ascii", "replace")


def _entry(line: int, text: str) -> Entry:
    """Take a hash apart. ValueError says what is wrong with it."""
    match text.split("$"):
        case ["", "6", salt, digest]:
            return Entry(line, "6", 1, text, _decoded(salt, "salt"), _digest(digest))
        case ["", "7", iterations, salt, digest]:
            count = _number(iterations, 1, _MOST_ITERATIONS, "iterations")
            return Entry(line, "7", count, text, _decoded(salt, "salt"), _digest(digest))
        case ["", "argon2id", "v=19", parameters, salt, digest]:
            return _argon2_entry(line, text, parameters, salt, digest)
        case ["", kind, *_] if kind not in ("6", "7", "argon2id"):
            raise ValueError("the kind of hash is unknown: $6$, $7$ and $argon2id$v=19$ are known")
        case ["", _, *_]:
            raise ValueError("the hash has not the parts that its kind has")
        case _:
            raise ValueError("that is no hash, perhaps a password in plain text")


def _argon2_entry(line: int, text: str, parameters: str, salt: str, digest: str) -> Entry:
    try:
        import argon2  # noqa: F401, PLC0415 - only where a file needs it
    except ImportError:
        raise ValueError("argon2id needs the package argon2-cffi, which is not installed") from None
    named = dict(part.partition("=")[::2] for part in parameters.split(","))
    if list(named) != ["m", "t", "p"]:
        raise ValueError("argon2id has the parameters m, t and p, in this order")
    lanes = _number(named["p"], 1, _MOST_LANES, "p")
    kib = _number(named["m"], 8 * lanes, _MOST_KIB, "m")
    _number(named["t"], 1, _MOST_PASSES, "t")
    salted, hashed = _decoded(salt, "salt", is_padded=False), _decoded(digest, "hash", is_padded=False)
    if len(salted) < 8 or len(hashed) < 16:
        raise ValueError("argon2id has a salt of 8 bytes or more and a hash of 16 or more")
    return Entry(line, "argon2id", kib, text, salted, hashed)


def _number(text: str, least: int, most: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ValueError(f"{what} of the hash is a number from {least} to {most}")
    return int(text)


def _decoded(text: str, what: str, *, is_padded: bool = True) -> bytes:
    try:
        data = base64.b64decode(text if is_padded else text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ValueError(f"the {what} is not base64")
    return data


def _digest(text: str) -> bytes:
    digest = _decoded(text, "hash")
    if len(digest) != _DIGEST:
        raise ValueError(f"the hash has {len(digest)} bytes instead of {_DIGEST}")
    return digest


def _fits_argon2(text: str, password: bytes) -> bool:
    from argon2 import low_level  # noqa: PLC0415 - only where a file needs it
    from argon2.exceptions import VerificationError  # noqa: PLC0415 - likewise

    try:
        return low_level.verify_secret(text.encode(), password, low_level.Type.ID)
    except VerificationError:
        return False


def hashed(password: bytes, kind: Hash) -> str:
    """A new hash of a password, with a salt of its own, as the file has it. Raises ImportError without argon2-cffi."""
    if kind == "argon2id":
        from argon2 import low_level  # noqa: PLC0415 - only where it is asked for

        salt = os.urandom(_SALT_ARGON2)
        return low_level.hash_secret(password, salt, _PASSES, _KIB, 1, _HASH_ARGON2, low_level.Type.ID).decode()
    salt = os.urandom(_SALT_PBKDF2)
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def check_username(name: str) -> None:
    """Raise ValueError, with the cure, where a user of that name could not stand in a file or not come in by MQTT."""
    if not name or name != name.strip() or name.startswith("#") or ":" in name or not name.isprintable():
        raise ValueError(
            f"{name!r} cannot be a user name: it holds no `:` or control character, has no blank at either end, "
            "and does not start with #"
        )
    if len(name.encode(errors="replace")) > _LONGEST:
        raise ValueError(f"a user name has at most {_LONGEST} bytes")


def replaced(data: bytes, username: str, text: str | None) -> bytes:
    """The bytes of a file with another hash for a user, or without the user. All other lines stay as they are.

    A user that is not there is added at the end.
    """
    lines = data.split(b"\n")
    is_there = [not line.startswith(b"#") and _names(line, username) for line in lines]
    new = b"" if text is None else f"{username}:{text}".encode()
    if not any(is_there):
        if text is None:
            return data
        return data + (b"\n" if lines[-1] else b"") + new + b"\n"
    first = is_there.index(True)
    kept = [new if n == first else line for n, line in enumerate(lines) if not is_there[n] or (n == first and new)]
    return b"\n".join(kept)


def _names(line: bytes, username: str) -> bool:
    name, colon, _ = line.partition(b":")
    return bool(colon) and name.strip() == username.encode()
