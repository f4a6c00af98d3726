"""Files of the certificate folder: written in one step, owned like the folder they stand in, read within bounds."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import RefusedError

_WRITABLE = "Name another folder with pki (as a service /var/lib/headgate/pki), or let the gateway's user write there"
LARGEST = 64 * 1024
"""Bytes that a certificate with its chain, or a key, may have."""


def read_bounded(path: Path) -> bytes:
    """The bytes of a file. Raises FileNotFoundError where there is none, and RefusedError with the cure."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RefusedError(f"{path}: {_said(error)}. The gateway's user must be able to read it") from error
    if len(data) > LARGEST:
        raise RefusedError(f"{path}: more than {LARGEST // 1024} KiB, that is no certificate. Take it out")
    return data


def is_there(path: Path) -> bool:
    """Whether there is such a file. Raises RefusedError where nobody may look."""
    try:
        return path.exists()
    except OSError as error:
        raise RefusedError(f"{path}: {_said(error)}. Run this as the gateway's user") from error


def made(folder: Path) -> Path:
    """The folder, made for its owner alone where it is missing. Raises RefusedError with the cure."""
    missing = [place for place in (folder, *folder.parents) if not is_there(place)]
    try:
        for place in reversed(missing):
            place.mkdir(mode=0o700, exist_ok=True)
            _give(place, place.parent)
    except OSError as error:
        raise RefusedError(f"{folder}: cannot be made: {_said(error)}. {_WRITABLE}") from error
    return folder


def write(path: Path, data: bytes) -> None:
    """Put a file there in one step, 0600, on the medium when this returns. Raises RefusedError with the cure."""
    folder = made(path.parent)
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=folder, delete=False) as out:
            draft = Path(out.name)  # 0600 from its first moment
            try:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
                _give(draft, folder)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)  # nothing is there any more where all went well
        flush(folder)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be written: {_said(error)}. {_WRITABLE}") from error


def take_away(*paths: Path) -> None:
    """Delete files; those that are not there need not be. Raises RefusedError with the cure."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RefusedError(f"{path}: cannot be deleted: {_said(error)}. Run this as the gateway's user") from error


def flush(folder: Path) -> None:
    """See to it that names in a folder are on the medium. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other lines and commands from changing the folder meanwhile; it is made where it is missing."""
    try:
        number = os.open(made(folder), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RefusedError(f"{folder}: {_said(error)}. Run this as the gateway's user") from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but the owner's group can read a file, or its group can write it."""
    with suppress(OSError):
        return bool(path.stat().st_mode & 0o027)
    return False


def _give(path: Path, like: Path) -> None:
    """What root makes belongs to whom the folder belongs to: the gateway's user has to read it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
