"""A line of a gateway with OPC UA devices, run for real, that keeps every sample that would go to the store.

Loaded by the conftest.py of the folders whose tests need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway import config
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.driver import find
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, DeviceState, Quality

PLANT = "urn:headgate:tests:plant"


class Seen(NamedTuple):
    """A sample as the store would get it; `time` is the source's, in ms."""

    value: Any
    time: int
    quality: str
    is_history: bool


class Rig:
    """What came of a line."""

    def __init__(self, devices: dict[str, Any], folder: Path) -> None:
        self.file = config.from_mapping({"gateway": "rig", "devices": devices}, base=folder)
        self.seen: dict[str, list[Seen]] = {}
        self.batches: list[Batch] = []
        self.states: list[DeviceState] = []
        self.image = Image()
        self.metrics = Metrics()
        (key, own), *others = self.file.lines.items()
        assert not others, "one line at a time"
        self.line = Line(
            key.port,
            find("opcua"),
            [(device, self.file.groups[device.name]) for device in own],
            sink=self._take,
            image=self.image,
            on_state=self.states.append,
            clock=SystemClock(),
            metrics=self.metrics,
        )

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        names = [tag.name for tag in batch.group.tags]
        at = range(len(names)) if batch.index is None else batch.index
        quality = batch.quality
        for k, (i, value) in enumerate(zip(at, batch.values, strict=True)):
            time = batch.times[k] if batch.times else batch.time
            own = quality if isinstance(quality, Quality) else quality[k]
            self.seen.setdefault(names[i], []).append(Seen(value, time, str(own), batch.is_history))

    def good(self, tag: str) -> list[Seen]:
        """What came of a tag, without what was only said again after an outage: the same value of the same time."""
        found: list[Seen] = []
        for seen in self.seen.get(tag, ()):
            if seen.quality == GOOD and not (found and (seen.value, seen.time) == (found[-1].value, found[-1].time)):
                found.append(seen)
        return found

    def newest(self, tag: str) -> Any:
        """The newest good value, None where there is none."""
        return next((seen.value for seen in reversed(self.seen.get(tag, ())) if seen.quality == GOOD), None)

    def has(self, tags: list[str], least: int) -> bool:
        """Whether all these counters have come so far."""
        return all((self.newest(tag) or 0) >= least for tag in tags)

    def faults(self, tags: list[str], *, started: int, period: int, first: int | None = None) -> list[str]:
        """What is wrong with counters, in words: missed, doubled, out of order, of a wrong time; empty is well."""
        found = []
        for tag in tags:
            came = self.good(tag)
            if not came:
                found.append(f"{tag}: nothing came")
                continue
            expected = came[0].value if first is None else first
            for seen in came:
                if seen.value != expected:
                    found.append(f"{tag}: {expected} expected, {seen} came")
                elif seen.value and seen.time != started + seen.value * period:
                    found.append(f"{tag}: {seen} has not the time {started + seen.value * period}")
                expected = seen.value + 1
        return found

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Wait for a condition, or fail by name."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - it may hold because of another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            last = {tag: seen[-1] for tag, seen in list(self.seen.items())[:5]}
            pytest.fail(f"waited {seconds} s in vain for: {what}; last seen {last}; states {self.states[-3:]}")


@asynccontextmanager
async def running(devices: dict[str, Any], folder: Path) -> Any:
    """Run the line of these devices; gives its Rig."""
    rig = Rig(devices, folder)
    task = asyncio.create_task(rig.line.run(), name="line")
    try:
        yield rig
    finally:
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                logging.getLogger("rig").error("the line ended", exc_info=error)
                raise error


def device(url: str, tags: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A device of these tags: nodes of the plant by their names, or whole addresses."""
    written = {
        name: {"address": address if isinstance(address, str) else f"nsu={PLANT};s={name}"}
        | (address if isinstance(address, dict) else {})
        for name, address in tags.items()
    }
    return {"driver": "opcua", "url": url, "security": "none", "every": "100ms", "tags": written} | more


def counters(count: int, first: int = 0) -> dict[str, Any]:
    """Tags that get every value of so many counters."""
    return {f"counter.{i}": {"sampling": "0s"} for i in range(first, first + count)}


@pytest.fixture
def opcua_rig(tmp_path: Path) -> Callable[..., Any]:
    """`async with opcua_rig({"plc": opcua_rig.device(server.url, opcua_rig.counters(5))}) as rig:` runs a line."""

    class Maker:
        device = staticmethod(device)
        counters = staticmethod(counters)

        def __call__(self, devices: dict[str, Any]) -> Any:
            return running(devices, tmp_path)

    return Maker()
