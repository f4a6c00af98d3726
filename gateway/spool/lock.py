"""The lock on a spool's folder: one process writes there, and a second one is told which."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import RefusedError


class Lock:
    """Holds `<folder>/lock` from construction to `release`. Raises RefusedError, naming the process that has it.

    The kernel gives the lock back when the process ends, however it ends; what the file says is only for people.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RefusedError(
                f"{path}: the spool's folder cannot be written ({error.strerror}): make it writable, or choose another "
                "spool.path"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                text = (
                    f"{path}: process {owner or '(not named)'} uses this spool; stop it, or choose another spool.path"
                )
            else:
                text = f"{path}: this file system cannot lock files ({error.strerror}); choose another spool.path"
            raise RefusedError(text) from error
        self._say(f"{os.getpid()}\n".encode())

    def _say(self, text: bytes) -> None:
        """Write our pid where a person may look for it; on a full disk it stays unsaid."""
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)
        except OSError:
            return

    def release(self) -> None:
        """Let the next one in."""
        self._say(b"")
        os.close(self._file)
