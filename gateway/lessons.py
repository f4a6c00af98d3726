"""What drivers found out about their devices, kept across restarts in one small file, `learned.json`.

    {"version": 1, "lines": {"tcp://10.0.0.5:502": {…}, …}}

What stands under a line is its driver's own document and means nothing to anybody else. Losing it costs time, for the
driver finds everything out anew, but never a value: so nothing here is worth stopping for. A file that cannot be used
is kept aside as `learned.json.unused` for people to look at, and one that cannot be written is said once.

The file is replaced as a whole: written beside, brought to the medium, renamed, the folder synced. After a crash
either version is found, never half of one. It is written at most each 10 minutes, and at the stop; so a crash forgets
what was learned in the last 10 minutes. Documents of lines that did not run are dropped with the next write.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from gateway.metrics import Metrics

log = logging.getLogger("headgate.lessons")

FILE = "learned.json"
ASIDE = "learned.json.unused"
VERSION = 1

LIMIT_BYTES = 1024 * 1024
"""So long may the file be. What does not fit is refused: a driver that learns without end shall not fill the card."""

_EVERY_S = 600.0
_STOP_S = 0.5
_FRAME_BYTES = 64
_BESIDE_BYTES = 8
"""What stands around the documents, and around each of them."""


class Lessons:
    """The file in `folder`: entered = loaded, left = written. `run` is the task that writes in between.

    Everything is done in `writing`, the thread that owns the folder's other files. Documents are made into bytes when
    they are handed over, so nobody can change one while it is written.
    """

    def __init__(self, folder: Path, *, writing: Executor, metrics: Metrics) -> None:
        self._folder = folder
        self._writing = writing
        self._documents: dict[str, bytes] = {}
        self._lines: set[str] = set()
        self._refusing: set[str] = set()
        self._is_failing = False
        self._changed = asyncio.Event()
        self._writes = metrics.counter("lessons_writes_total")
        self._refused = metrics.counter("lessons_refused_total")
        metrics.gauge("lessons_bytes", self._size)

    def __repr__(self) -> str:
        return f"<Lessons of {len(self._documents)} lines, {'changed' if self._changed.is_set() else 'written'}>"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._documents = await loop.run_in_executor(self._writing, _load, self._folder)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._changed.is_set():
            return
        try:
            async with asyncio.timeout(_STOP_S):
                await self._write()
        except TimeoutError:
            log.error("the lessons could not be written within %.1f s: the disk does not answer", _STOP_S)  # noqa: TRY400 - no trace helps

    async def run(self) -> None:
        """Write what has changed, at most each 10 minutes, until cancelled."""
        while True:
            await self._changed.wait()
            await self._write()
            await asyncio.sleep(_EVERY_S)

    def recall(self, line: str) -> Mapping[str, Any] | None:
        """What `keep` was given last for this line, now or in an earlier run; None where there is nothing."""
        self._lines.add(line)
        document = self._documents.get(line)
        return None if document is None else orjson.loads(document)

    def keep(self, line: str, lessons: Mapping[str, Any]) -> None:
        """Take what a line's driver has learned so far. Where it is no JSON or too much, that is said, once."""
        self._lines.add(line)
        if line not in self._documents and not any(lessons.values()):
            return  # nothing was learned yet
        try:
            document = orjson.dumps(lessons, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:  # orjson's own error is one
            self._refuse(line, f"it is no JSON ({error})")
            return
        if document == self._documents.get(line):
            return
        others = self._size() - self._size_of(line)
        if others + len(document) + len(line) + _BESIDE_BYTES > LIMIT_BYTES:
            self._refuse(line, f"{len(document):,} bytes beside {others:,} of others, of {LIMIT_BYTES:,} in all")
            return
        self._refusing.discard(line)
        self._documents[line] = document
        self._changed.set()

    def _refuse(self, line: str, why: str) -> None:
        self._refused.value += 1
        if line not in self._refusing:
            self._refusing.add(line)
            log.warning("line %s: what its driver has learned is not kept across restarts: %s", line, why)

    def _size(self) -> int:
        return _FRAME_BYTES + sum(map(self._size_of, self._documents))

    def _size_of(self, line: str) -> int:
        document = self._documents.get(line)
        return 0 if document is None else len(document) + len(orjson.dumps(line)) + _BESIDE_BYTES

    async def _write(self) -> None:
        """Write everything in the thread. What changes meanwhile is written the next time."""
        self._changed.clear()
        self._documents = {line: text for line, text in self._documents.items() if line in self._lines}
        parts = {line: orjson.Fragment(text) for line, text in self._documents.items()}
        document = orjson.dumps({"version": VERSION, "lines": parts})
        try:
            await asyncio.get_running_loop().run_in_executor(self._writing, replace_file, self._folder, FILE, document)
        except OSError as error:
            if not self._is_failing:
                log.warning("%s: cannot be written (%s)", self._folder / FILE, error.strerror or error)
            self._is_failing = True
            self._changed.set()
        except asyncio.CancelledError:
            self._changed.set()  # nobody knows whether it was done: once more does no harm
            raise
        else:
            self._is_failing = False
            self._writes.value += 1


def _load(folder: Path) -> dict[str, bytes]:
    """The documents by line; none where there is no file, or none of ours."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("%s: cannot be read (%s): everything is learned anew", path, error.strerror or error)
        return {}
    try:
        return _documents(content)
    except ValueError as error:
        _put_aside(folder, error)
        return {}


def _documents(content: bytes) -> dict[str, bytes]:
    """Take the file apart. Raises ValueError where it is none of ours."""
    if len(content) > LIMIT_BYTES:
        raise ValueError(f"it is larger than {LIMIT_BYTES:,} bytes")
    file = orjson.loads(content)
    if not isinstance(file, dict) or file.get("version") != VERSION:
        raise ValueError(f"it does not say version {VERSION}")
    lines = file.get("lines")
    if not isinstance(lines, dict) or not all(isinstance(document, dict) for document in lines.values()):
        raise ValueError("it has no documents by line")
    try:
        return {line: orjson.dumps(document, option=orjson.OPT_SORT_KEYS) for line, document in lines.items()}
    except TypeError as error:  # orjson's own error is one: it reads what is nested deeper than it writes
        raise ValueError(str(error)) from error


def _put_aside(folder: Path, error: ValueError) -> None:
    try:
        (folder / FILE).replace(folder / ASIDE)
        where = f"kept aside as {ASIDE}"
    except OSError as why:
        where = f"left where it is ({why.strerror})"
    log.warning("%s: of no use: %s; %s, and everything is learned anew", folder / FILE, error, where)


def replace_file(folder: Path, name: str, document: bytes) -> None:
    """Put a file in place, whole or not at all. Raises OSError."""
    draft = folder / f".{name}.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / name)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
