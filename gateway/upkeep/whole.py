"""A file that appears when it is whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gateway.errors import RefusedError


def whole_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write the pieces beside `path`, bring them to the medium, and give them the name. Raises RefusedError.

    What stood there before stays until then; nothing is left behind when it fails.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be written ({error.strerror}). Name a file in another folder") from error
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                _write(file.fileno(), piece, path)
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)


def _write(file: int, piece: bytes, path: Path) -> None:
    """Write all of it. An error is told as one of this file: the pieces come from reading others."""
    view = memoryview(piece)
    while view:
        try:
            view = view[os.write(file, view) :]
        except OSError as error:
            raise RefusedError(f"{path}: cannot be written ({error.strerror}). Make room, or name another") from error


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
