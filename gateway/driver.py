"""The driver contract, and finding drivers by entry point.

A driver owns one *line* (a connection or a serial port) and all devices on it. It reads and it says what failed; it
never sleeps between polls, never retries for ever, never logs outages, never scales: the frame (`acquisition/line.py`)
does that for all drivers alike. `read` is the one required verb; the others are protocols a driver may also fulfil.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel

from gateway.clock import Clock
from gateway.errors import HeadgateError
from gateway.metrics import Metrics
from gateway.model import Batch, Device, ScanGroup, Tag

ENTRY_POINTS = "headgate.drivers"


class UnknownDriverError(HeadgateError):
    """No installed package offers a driver of that name."""


@dataclass(frozen=True, slots=True)
class LineKey:
    """Identity of a line. Devices with the same `port` share it, and must agree on `parameters` (baud, parity, …)."""

    port: str
    parameters: str = ""


class Driver(Protocol):
    """One line and its devices: constructed = validated, entered = connected, left = closed, and entered again.

    `DeviceOptions` and `TagOptions` are pydantic models of the keys that only this driver knows, over and above those
    every device and tag has; the file's checker and the JSON Schema are composed from them.
    """

    DeviceOptions: ClassVar[type[BaseModel]]
    TagOptions: ClassVar[type[BaseModel]]

    def __init__(self, devices: Sequence[Device], *, clock: Clock, metrics: Metrics) -> None:
        """Take the devices of one line. No I/O."""

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:
        """Normalise a device's url. Raises ValueError with the cure when it cannot be used."""

    @classmethod
    def compile(cls, device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
        """Check addresses and plan reads, without I/O and without importing the protocol library.

        Called once for each class of tags that the device has. Raises FileError with every mistake found.
        """

    async def __aenter__(self) -> Self:
        """Connect. Raises LineError."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once, raw (unscaled). Tags that failed alone come back as None with their quality.

        Raises DeviceError when the unit failed as a whole, LineError when the line did.
        """


@runtime_checkable
class Simulates(Protocol):
    """A driver that can pretend to be devices, for demo, bench and tests."""

    @classmethod
    def simulate(cls) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Start simulated devices on loopback; gives the `devices` section of a gateway file that reads them."""


@runtime_checkable
class SimulatesLoad(Protocol):
    """A driver that can pretend to be many cheap devices, for measuring what the gateway can do."""

    @classmethod
    def simulate_load(cls, devices: int, tags: int, every: str) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Serve that many devices with that many float32 tags; gives the `devices` section that polls them `every`."""


@cache
def find(name: str) -> type[Driver]:
    """The driver of that name. Raises UnknownDriverError, which lists those installed."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise UnknownDriverError(f"there is no driver '{name}'; installed are: {', '.join(sorted(found)) or 'none'}")
    driver: type[Driver] = found[name].load()
    return driver


def installed() -> list[str]:
    """Names of all installed drivers, sorted. Nothing is imported."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})
