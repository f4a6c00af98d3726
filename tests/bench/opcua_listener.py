"""A gateway that listens to counters of an OPC UA server for a while and says what came and what it cost.

`opcua_listener.py line|whole URL ITEMS EVERY_MS SECONDS FOLDER`: `line` is a line whose batches are counted value by
value, `whole` a gateway that stores them all, for an uplink that cannot be reached. Says {"ready": true} once each item
has come, then a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from gateway import config
from gateway.acquisition.line import Line
from gateway.app import App
from gateway.clock import SystemClock
from gateway.driver import find
from gateway.image import Image
from gateway.metrics import Metrics

PLANT = "urn:headgate:tests:plant"


def document(url: str, items: int, every_ms: int) -> dict[str, Any]:
    """A gateway file of so many counters; each change is to be told of."""
    tags = {f"c{i}": {"address": f"nsu={PLANT};s=counter.{i}", "sampling": "0s"} for i in range(items)}
    device = {"driver": "opcua", "url": url, "security": "none", "every": f"{every_ms}ms", "tags": tags}
    return {"gateway": "bench", "devices": {"plc": device}}


def resident() -> float:
    """MiB in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def waiting() -> float:
    """Seconds that this process has waited for a processor."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


async def watch(image: Image, seconds: float, values: Any) -> dict[str, Any]:
    """Wait for a first value of each tag, then for the time; gives what was used meanwhile."""
    deadline = time.monotonic() + 120
    while not all(sample.time for sample in image.samples()):
        assert time.monotonic() < deadline, "not every item has come"
        await asyncio.sleep(0.2)
    print(json.dumps({"ready": True}), flush=True)
    before, cpu, waited, began = values(), time.process_time(), waiting(), time.monotonic()
    await asyncio.sleep(seconds)
    took, cpu, waited = time.monotonic() - began, time.process_time() - cpu, waiting() - waited
    return {"values": values() - before, "seconds": took, "cpu_s": cpu, "waited_s": waited, "rss": resident()}


async def line(data: dict[str, Any], seconds: float, folder: Path) -> dict[str, Any]:
    """Only the line; its batches are looked through afterwards."""
    file = config.from_mapping(data, base=folder)
    ((key, own),) = file.lines.items()
    batches: list[Any] = []
    image = Image()
    made = Line(
        key.port,
        find("opcua"),
        [(device, file.groups[device.name]) for device in own],
        sink=batches.append,
        image=image,
        on_state=lambda _: None,
        clock=SystemClock(),
        metrics=Metrics(),
    )
    task = asyncio.create_task(made.run())
    report = await watch(image, seconds, lambda: sum(len(batch.values) for batch in batches))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return report | counted(batches)


def counted(batches: list[Any]) -> dict[str, int]:
    """How many values were missed, and how many came twice or out of order, over all items; how old the last were."""
    last: dict[str, int] = {}
    missed = doubled = late_ms = 0
    for batch in batches:
        late_ms = batch.time - min(batch.times or [batch.time])
        names = [tag.name for tag in batch.group.tags]
        for i, value in zip(batch.index or range(len(names)), batch.values, strict=True):
            if value is None:
                continue
            known = last.get(names[i], value - 1)
            missed += max(0, value - known - 1)
            doubled += value <= known
            last[names[i]] = value
    return {"missed": missed, "doubled": doubled, "items": len(last), "late_ms": late_ms}


async def whole(data: dict[str, Any], seconds: float, folder: Path) -> dict[str, Any]:
    """The gateway with its store; the uplink is a closed port, so that everything is kept."""
    data = data | {"uplinks": {"nowhere": {"url": "mqtt://127.0.0.1:1"}}, "spool": {"path": str(folder / "spool")}}
    async with App(config.from_mapping(data, base=folder)) as app:
        ((name, _),) = app._lines.items()
        counter = app.metrics.counter("line_values_total", line=name)
        report = await watch(app.image, seconds, lambda: counter.value)
    stored = sum(file.stat().st_size for file in (folder / "spool").rglob("*") if file.is_file())
    return report | {"stored_mib": stored / 2**20}


def main() -> None:
    """See the head of this file."""
    how, url, items, every_ms, seconds, folder = sys.argv[1:]
    run = line if how == "line" else whole
    report = asyncio.run(run(document(url, int(items), int(every_ms)), float(seconds), Path(folder)))
    print(json.dumps(report), flush=True)


main()
