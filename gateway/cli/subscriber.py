"""A subscriber that only looks at when messages come: the far end of `headgate bench`. MQTT 3.1.1, in a thread."""

from __future__ import annotations

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

_STAMP = b'{"ts":'
_STAMP_DIGITS = 13  # milliseconds since 1970, until the year 2286
_CHUNK = 1 << 20


class Subscriber:
    """Entered = subscribed. `begin` starts noting ages of messages, `end` gives them, in ms."""

    def __init__(self, port: int, topic_filter: str) -> None:
        self._port = port
        self._filter = topic_filter.encode()
        self._ages: list[int] = []
        self._noting = False
        self._socket = socket.socket()
        self._thread = threading.Thread(target=self._listen, name="subscriber", daemon=True)

    def __enter__(self) -> Self:
        s = self._socket
        s.connect(("127.0.0.1", self._port))
        client = b"headgate-bench-%d" % self._port
        body = struct.pack(">H4sBBHH", 4, b"MQTT", 4, 2, 0, len(client)) + client  # [MQTT 3.1.1, 3.1] keep alive off
        s.sendall(bytes((0x10, len(body))) + body)
        body = struct.pack(">HH", 1, len(self._filter)) + self._filter + b"\0"  # [MQTT 3.1.1, 3.8] QoS 0
        s.sendall(bytes((0x82, len(body))) + body)
        answers = b""
        while len(answers) < 9:  # CONNACK of 4 bytes, SUBACK of 5
            answers += s.recv(16)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def begin(self) -> None:
        """Forget what came before, note from now on."""
        self._ages = []
        self._noting = True

    def end(self) -> list[int]:
        """The ages of all messages since `begin`."""
        self._noting = False
        return self._ages

    def _listen(self) -> None:
        """The stamp stands at the head of each payload, so payloads need not be taken apart."""
        rest = b""
        while data := self._socket.recv(_CHUNK):
            if not self._noting:
                rest = b""
                continue
            now = time.time_ns() // 1_000_000
            data = rest + data
            at = data.find(_STAMP)
            while at >= 0:
                digits = data[at + len(_STAMP) : at + len(_STAMP) + _STAMP_DIGITS]
                if len(digits) < _STAMP_DIGITS:
                    break
                self._ages.append(now - int(digits))
                at = data.find(_STAMP, at + len(_STAMP) + _STAMP_DIGITS)
            keep = len(_STAMP) + _STAMP_DIGITS - 1
            rest = data[at:] if at >= 0 else data[-keep:] if _STAMP not in data[-keep:] else b""
