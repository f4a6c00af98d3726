"""Many simulated Modbus TCP devices in one cheap process: the other side of a benchmark.

Every device holds `tags` float32 values in big-endian word order, holding registers 0 … 2 * tags - 1, which change
every 100 ms. Answers are cut from register images that were made beforehand, so that the simulator costs little beside
what is measured. It serves function code 3 and nothing else: any other request gets exception 1.
"""

from __future__ import annotations

import asyncio
import math
import random
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

_IMAGES = 64
_STEP_S = 0.1
_HEADER = struct.Struct(">HHHBBHH")
_READ_HOLDING = 3
_SEED = 4711


def _images(tags: int) -> list[bytes]:
    """Register images of one device at consecutive moments: slow waves with noise in every digit."""
    dice = random.Random(_SEED)
    pack = struct.Struct(f">{tags}f").pack
    return [
        pack(*(50 + t % 7 + 20 * math.sin(k / 10 + t) + dice.gauss(0, 0.01) for t in range(tags)))
        for k in range(_IMAGES)
    ]


class _Station(asyncio.Protocol):
    """One connection to one device."""

    def __init__(self, images: list[bytes], number: int) -> None:
        self._images = images
        self._number = number
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        image = self._images[(int(time.monotonic() / _STEP_S) + self._number) % _IMAGES]
        answers = []
        at = 0
        while len(data) - at >= _HEADER.size:
            tid, _, _, unit, function, first, count = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            body = image[2 * first : 2 * (first + count)]
            if function != _READ_HOLDING or len(body) != 2 * count:
                answers.append(struct.pack(">HHHBBB", tid, 0, 3, unit, function | 0x80, 2 if len(body) else 1))
            else:
                answers.append(struct.pack(">HHHBBB", tid, 0, 3 + len(body), unit, function, len(body)) + body)
        self._buffer = data[at:]
        self._transport.write(b"".join(answers))


@asynccontextmanager
async def serve(devices: int, tags: int, every: str) -> AsyncIterator[dict[str, Any]]:
    """Listen on one loopback port per device; gives the `devices` section of a gateway file that polls them `every`."""
    loop = asyncio.get_running_loop()
    images = _images(tags)
    servers = []
    section: dict[str, Any] = {}
    try:
        for number in range(devices):
            server = await loop.create_server(lambda n=number: _Station(images, n), "127.0.0.1", 0)  # type: ignore[misc]
            servers.append(server)
            port = server.sockets[0].getsockname()[1]
            section[f"d{number:03}"] = {
                "driver": "modbus",
                "url": f"tcp://127.0.0.1:{port}",
                "every": every,
                "tags": {f"t{t:03}": {"address": f"holding:{2 * t}", "type": "float32"} for t in range(tags)},
            }
        yield section
    finally:
        for server in servers:
            server.close()
