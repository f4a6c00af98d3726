"""`headgate passwd FILE USER`: who may log in at the embedded broker, in a file as mosquitto has it."""

from __future__ import annotations

import argparse
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.broker.passwords import Passwords

SUMMARY = "add, change, delete and list the users of a password file of the embedded broker"

_LONGEST = 65_535
"""Bytes of a password in CONNECT."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", type=Path, help="the password file; it is made where there is none")
    parser.add_argument("user", nargs="?", help="the user to add, or whose password to change")
    parser.add_argument("--stdin", action="store_true", help="read the password from the first line of standard input")
    parser.add_argument(
        "--hash",
        choices=("argon2id", "pbkdf2"),
        default="argon2id",
        help="how the password is kept: argon2id (the default), or pbkdf2, which mosquitto 2.0 reads too",
    )
    parser.add_argument("--delete", action="store_true", help="delete the user instead")
    parser.add_argument("--list", action="store_true", help="list all users instead")
    parser.add_argument("--json", action="store_true", help="with --list: one JSON document")
    parser.set_defaults(complain=parser.error)


def run(args: argparse.Namespace) -> int:
    """Do one of the three. A password is asked for twice without echo; it never stands on the command line.

    Exit code 0; 1 where the file cannot be written, the user to delete is not there or the passwords differ; 2 where
    the arguments or the file are wrong.
    """
    if args.list == (args.user is not None) or (args.list and args.delete):
        args.complain("name a user, or give --list instead")
    if args.list:
        return _list(args.file, as_json=args.json)
    if args.delete:
        return _delete(args.file, args.user)
    return _set(args)


def _list(file: Path, *, as_json: bool) -> int:
    users = _parsed(_read(file), file)
    if as_json:
        import orjson

        rows = [{"user": name, "hash": entry.kind, "weak": entry.is_weak} for name, entry in users]
        print(orjson.dumps({"users": rows}, option=orjson.OPT_INDENT_2).decode())
        return 0
    for name, entry in users:
        kind = entry.kind if entry.kind == "argon2id" else f"${entry.kind}$"
        print(f"{name}: {kind}{', weak' if entry.is_weak else ''}")
    for caution in users.cautions:
        print(caution, file=sys.stderr)
    return 0


def _delete(file: Path, user: str) -> int:
    from gateway.broker.passwords import replaced
    from gateway.errors import RefusedError

    with _alone(file) as folder:
        before = _read(file)
        after = replaced(before, user, None)
        if after == before:
            raise RefusedError(f"{file}: there is no user {user!r}. See `headgate passwd {file} --list`")
        _write(file, after, folder)
    print(f"{file}: user {user!r} is deleted", file=sys.stderr)
    return 0


def _set(args: argparse.Namespace) -> int:
    from gateway.broker.passwords import check_username, hashed, replaced
    from gateway.errors import RefusedError

    try:
        check_username(args.user)
    except ValueError as error:
        args.complain(str(error))
    password = _from_stdin() if args.stdin else _from_terminal(args.user)
    try:
        text = hashed(password, args.hash)
    except ImportError:
        raise RefusedError("argon2id needs the package argon2-cffi. Install it, or choose --hash pbkdf2") from None
    with _alone(args.file) as folder:
        before = _read(args.file) if args.file.exists() else b""
        if _is_foreign(before):
            raise RefusedError(
                f"{args.file}: this is no password file, no line of it is USER:HASH. Nothing is changed, name another"
            )
        after = replaced(before, args.user, text)
        _write(args.file, after, folder)
    print(f"{args.file}: the password of user {args.user!r} is set", file=sys.stderr)
    for problem in _problems(after, args.file):
        print(problem, file=sys.stderr)
    return 0


def _is_foreign(data: bytes) -> bool:
    """Whether this is rather some other file, a gateway file for example. A list of plain passwords is none."""
    lines = [line.rstrip() for line in data.split(b"\n") if line.strip() and not line.startswith(b"#")]
    is_other = any(b":" not in line or b": " in line or line.endswith(b":") for line in lines)
    return is_other and not any(b":$" in line for line in lines)


def _from_stdin() -> bytes:
    """The first line, without its end, as bytes: a terminal's alphabet is none of a password's business."""
    return _checked(sys.stdin.buffer.readline(_LONGEST + 2).removesuffix(b"\n").removesuffix(b"\r"))


def _from_terminal(user: str) -> bytes:
    import getpass
    import warnings

    from gateway.errors import RefusedError

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would go on, and show what is typed
        try:
            first = getpass.getpass(f"Password of {user}: ")
            second = getpass.getpass("Again: ")
        except (getpass.GetPassWarning, EOFError):
            raise RefusedError("there is no terminal to ask for the password. Give it by --stdin") from None
    if first != second:
        raise RefusedError("the two are not the same. Nothing is changed, try again")
    return _checked(first.encode(errors="surrogateescape"))


def _checked(password: bytes) -> bytes:
    from gateway.errors import RefusedError

    if not password:
        raise RefusedError("the password is empty. Nothing is changed, give one")
    if b"\0" in password or len(password) > _LONGEST:
        raise RefusedError(f"a password has at most {_LONGEST} bytes, none of them NUL. Choose another")
    return password


def _read(file: Path) -> bytes:
    from gateway.errors import RefusedError

    try:
        return file.read_bytes()
    except OSError as error:
        raise RefusedError(f"{file}: {(error.strerror or str(error)).lower()}") from error


def _parsed(data: bytes, file: Path) -> Passwords:
    from gateway.broker.passwords import parse
    from gateway.errors import FileError, Mistake
    from gateway.model import Place

    try:
        return parse(data, str(file))
    except ValueError as error:
        raise FileError(Mistake(Place(), line) for line in str(error).splitlines()) from None


def _problems(data: bytes, file: Path) -> list[str]:
    """What else is wrong in a file that was just written. It is not for the user who was set to mend it first."""
    from gateway.broker.passwords import parse

    try:
        return list(parse(data, str(file)).cautions)
    except ValueError as error:
        return str(error).splitlines()


@contextmanager
def _alone(file: Path) -> Iterator[int]:
    """Keep other runs of this command out of the file's folder, so that none undoes what another one does.

    Gives the folder's descriptor.
    """
    from gateway.errors import RefusedError

    try:
        folder = os.open(file.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RefusedError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _write(file: Path, data: bytes, folder: int) -> None:
    """Replace the file in one step. It keeps owner, group and the group's right to read; a new one is 0600."""
    from gateway.errors import RefusedError

    target = file.resolve()  # a link stays one
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent, delete=False) as out:
            new = Path(out.name)
            try:
                with suppress(FileNotFoundError):
                    before = target.stat()
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
                    os.fchmod(out.fileno(), stat.S_IMODE(before.st_mode) & 0o040 | 0o600)
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
                new.replace(target)
            finally:
                new.unlink(missing_ok=True)  # nothing is there any more where all went well
        os.fsync(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RefusedError(f"{file}: cannot be written: {reason}. Run this as the file's owner") from error
