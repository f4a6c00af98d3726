"""Unix socket of the running process: one JSON object a line in, one a line out.

    -> {"do": "read", "device": "boiler"}
    <- {"ok": true, "samples": [...]}
    <- {"ok": false, "error": "there is no device 'boilr'"}

The socket has mode 0600: who may open it may also edit the file the gateway runs. Lines and connections are bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from gateway.errors import HeadgateError, RefusedError

log = logging.getLogger("headgate.control")

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Takes a request, gives the answer's fields, or promises them. Raises HeadgateError for what the asker did wrong."""

SOCKET = "control.sock"
_LONGEST_LINE = 64 * 1024
_LONGEST_ANSWER = 64 * 1024 * 1024
_MOST_CLIENTS = 16
_IDLE_S = 60.0


class ControlError(HeadgateError):
    """The running process could not be asked, or refused the request."""


class NotRunningError(ControlError):
    """No process runs on this spool folder."""


class Control:
    """The server side: a context manager, entered = listening, left = closed and the socket removed."""

    def __init__(self, folder: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = folder / SOCKET
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        return f"<Control at {self._path}, {len(self._clients)} connected>"

    async def __aenter__(self) -> Self:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)  # left by a process that was killed; the folder's lock is ours
            with _named(self._path) as name:
                listener.bind(name)
        except OSError as error:
            listener.close()
            raise RefusedError(f"{self._path}: cannot listen here: {error.strerror}") from error
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_LONGEST_LINE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        for client in list(self._clients):
            client.transport.abort()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MOST_CLIENTS:
            writer.transport.abort()
            return
        self._clients.add(writer)
        try:
            while line := await asyncio.wait_for(reader.readline(), _IDLE_S):
                writer.write(orjson.dumps(await self._answer(line), default=str) + b"\n")
                await asyncio.wait_for(writer.drain(), _IDLE_S)
        except ValueError:  # a line beyond the limit
            log.info("closed a control connection: its request is longer than %d bytes", _LONGEST_LINE)
        except (OSError, TimeoutError, RuntimeError):  # RuntimeError: the transport was aborted by an ordered stop
            pass  # the asker went away, or fell asleep: nothing depends on it
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
            verb = request["do"]
            handler = self._handlers[verb]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            known = ", ".join(sorted(self._handlers))
            return {
                "ok": False,
                "error": f'not a request: expected one line {{"do": VERB, …}} with VERB one of {known}',
            }
        try:
            answer = handler(request)
            if isinstance(answer, Awaitable):
                answer = await answer
        except HeadgateError as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True, **answer}


def ask(folder: Path, request: Mapping[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request to the process that runs on this spool folder. Raises ControlError."""
    path = folder / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(timeout_s)
            with _named(path) as name:
                s.connect(name)
            s.sendall(orjson.dumps(request) + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n") and len(answer) < _LONGEST_ANSWER:
                chunk = s.recv(256 * 1024)
                if not chunk:
                    break
                answer += chunk
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(f"no gateway runs on {folder}: start it with 'headgate run FILE'") from error
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from error
    if not answer:
        raise ControlError(f"{path}: the gateway closed the connection without an answer")
    document: dict[str, Any] = json.loads(answer)  # orjson would make floats of integers beyond 64 bits
    if not document.pop("ok"):
        raise ControlError(str(document["error"]))
    return document


@contextmanager
def _named(path: Path) -> Iterator[str]:
    """A name for the socket that fits: sun_path of unix(7) holds 107 bytes, a path may be longer.

    The folder's descriptor in /proc stands for the folder, however deep it lies.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
