"""Simulated devices, found through the driver verb `simulate`, and the table that shows their values.

Nothing is written outside the folder it is handed, and nothing is left running.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from gateway.driver import Simulates, find, installed
from gateway.image import Sample
from gateway.model import GOOD, DeviceState, Value

NAME = "demo"

PORT = 1883
_WIDTHS = (14, 16, 14, 8, 16, 6)
_HEAD = ("DEVICE", "TAG", "VALUE", "UNIT", "QUALITY", "AGE")


@asynccontextmanager
async def simulated() -> AsyncIterator[dict[str, Any]]:
    """Start what every installed driver can simulate; gives the `devices` section of a gateway file that reads it."""
    async with AsyncExitStack() as stack:
        devices: dict[str, Any] = {}
        for name in installed():
            driver: Any = find(name)
            if isinstance(driver, Simulates):
                devices |= await stack.enter_async_context(driver.simulate())
        yield devices


def document(devices: Mapping[str, Any], listen: str, uplink: str | None) -> dict[str, Any]:
    """The whole gateway file of the demo. `listen` is its own broker's address, `uplink` another broker's url."""
    file: dict[str, Any] = {
        "gateway": NAME,
        "broker": {"listen": listen, "payload": ["json", "value"]},
        "devices": dict(devices),
    }
    if uplink is not None:
        file["uplinks"] = {"broker": {"url": uplink}}
    return file


def listener() -> str:
    """Where the demo's broker listens: MQTT's own port, or any free one where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return "mqtt://127.0.0.1:0"
    return f"mqtt://127.0.0.1:{PORT}"


def table(samples: Iterable[Sample], states: Mapping[str, DeviceState], now_ms: int) -> str:
    """The live table: one row a tag with value, unit, quality and age. Plain text, one line each."""
    lines = [_row(_HEAD)]
    device = ""
    for s in samples:
        shown = s.device if s.device != device else ""
        device = s.device
        state = states.get(s.device)
        mark = "" if state is None or state.online else " (offline)"
        age = f"{max(0.0, (now_ms - s.time) / 1000):.1f} s" if s.time else "-"
        quality = "good" if s.quality == GOOD else str(s.quality)
        lines.append(_row((shown + (mark if shown else ""), s.tag, _text(s.value), s.unit, quality, age)))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, (bytes, list, dict)):
        return value.hex() if isinstance(value, bytes) else orjson.dumps(value, default=bytes.hex).decode()
    text = str(value)
    return text if text.isprintable() else repr(text)[1:-1]  # what could steer a terminal is spelled out
