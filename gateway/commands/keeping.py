"""Ids of commands across restarts: one small file, `commands.json`, beside what drivers learned.

A flush for each command would be one too many, so the file says whether it can be trusted. At the start, before any
command is taken, it says `stopped: false`; then it is written at most once a minute; at an orderly stop it gets all ids
and says `stopped: true`. A start that finds no such file knows that ids are missing, and has doubts (ids.py).
The file is replaced as a whole: after a crash either version is found.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from gateway.clock import Clock
from gateway.commands.ids import DOUBT_S, Ids
from gateway.lessons import replace_file

log = logging.getLogger("headgate.commands")

FILE = "commands.json"
_LIMIT_BYTES = 4 * 1024 * 1024
_EVERY_S = 60.0
_STOP_S = 0.5


class Keeping:
    """The file in `folder`: entered = loaded and marked, left = written. `run` is the task that writes in between.

    Everything is done in `writing`, the thread that owns the folder's other files.
    """

    def __init__(self, folder: Path, *, writing: Executor, clock: Clock) -> None:
        self._folder = folder
        self._writing = writing
        self._clock = clock
        self._written = 0
        self._is_failing = False
        self.ids = Ids()

    def __repr__(self) -> str:
        return f"<Keeping of {self.ids!r}>"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        now = self._clock.monotonic()
        self.ids = await loop.run_in_executor(self._writing, _load, self._folder / FILE, now)
        await self._write(stopped=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(_STOP_S):
                await self._write(stopped=True)
        except TimeoutError:
            log.error("the ids of commands could not be kept within %.1f s: the disk does not answer", _STOP_S)  # noqa: TRY400 - no trace helps

    async def run(self) -> None:
        """Write what has changed, at most once a minute, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            if self.ids.changes != self._written:
                await self._write(stopped=False)

    async def _write(self, *, stopped: bool) -> None:
        changes, document = self.ids.changes, self.ids.document(now=self._clock.monotonic(), stopped=stopped)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writing, _store, self._folder, orjson.dumps(document))
        except OSError as error:
            if not self._is_failing:
                log.warning("%s: cannot be written (%s)", self._folder / FILE, error.strerror or error)
            self._is_failing = True
        else:
            self._is_failing = False
            self._written = changes


def _load(path: Path, now: float) -> Ids:
    """The ids; none and doubts where there is no file, or none of ours."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
        return Ids.of(orjson.loads(content), now=now)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # orjson's own error is one
        log.warning("%s: of no use (%s): the ids of earlier commands are not known", path, error)
    return Ids(now=now, doubt_s=DOUBT_S)


def _store(folder: Path, document: bytes) -> None:
    """Put the file in place. Where that cannot be none stays, for the one before may say `stopped`. Raises OSError."""
    try:
        replace_file(folder, FILE, document)
    except OSError:
        with suppress(OSError):
            (folder / FILE).unlink(missing_ok=True)
        raise
