"""`headgate read FILE [DEVICE [TAG]]`: values now, from the running gateway or, where none runs, from the devices.

With an address in place of a tag, or a url in place of a file: what stands there, in every decoding. A tag that became
many when its device was asked is read with all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from gateway import demo
from gateway.acquisition.line import Line
from gateway.cli import adhoc
from gateway.cli.browse_tree import plain
from gateway.cli.desk import at_device, at_url, gateway_file, is_url, wrong
from gateway.clock import SystemClock
from gateway.config import Config, load
from gateway.control import NotRunningError, ask
from gateway.driver import find
from gateway.errors import RefusedError
from gateway.image import Image, Sample
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, DeviceState, Quality, bad

SUMMARY = "Read values now: from the running gateway, or from the devices where none runs."

_PATIENCE_S = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE|URL", help="the gateway file, or a device's url")
    parser.add_argument("device", nargs="?", metavar="DEVICE|ADDRESS", help="only this device; of a url: the address")
    parser.add_argument("tag", nargs="?", metavar="TAG|ADDRESS", help="only this tag, or an address of the device")
    parser.add_argument("--count", type=int, help="of an address: how many registers or bits; default 4 or fewer")
    adhoc.declare(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print the samples asked for. Exit code 1 when one of them is not good."""
    if is_url(options.file):
        if options.device is None or options.tag is not None:
            raise wrong(f"read {options.file} what? Name one address, like holding:100")
        return adhoc.show(options, at_url(options, options.file), options.device)
    config = load(gateway_file(options.file))
    if options.tag is not None and _is_address(config, options.device, options.tag):
        return adhoc.show(options, at_device(options, config, options.device), options.tag)
    _check(config, options.device, options.tag)
    try:
        answer = ask(config.spool.path, {"do": "read", "device": options.device})
        samples = [_sample(row) for row in answer["samples"]]
    except NotRunningError:
        samples = asyncio.run(_read(config, options.device))
    chosen = _chosen(samples, options.device, options.tag)
    if options.json:
        rows = [asdict(s) for s in chosen]
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2, default=bytes.hex).decode())
    else:
        print(demo.table(chosen, {}, SystemClock().wall_ms()))
    return 0 if all(s.quality.level == "good" for s in chosen) else 1


def _check(config: Config, device: str | None, tag: str | None) -> None:
    names = {d.name: {t.name for t in d.tags} for d in config.devices}
    if device is not None and device not in names:
        raise RefusedError(f"there is no device '{device}'; the file has: {', '.join(names)}")
    if device is not None and tag is not None and not any(f"{tag}/".startswith(f"{name}/") for name in names[device]):
        raise _unknown(device, tag, names[device])


def _unknown(device: str, tag: str, names: Iterable[str]) -> RefusedError:
    return RefusedError(f"device '{device}' has no tag '{tag}'; it has: {', '.join(sorted(names))}")


def _chosen(samples: Sequence[Sample], device: str | None, tag: str | None) -> list[Sample]:
    """The samples asked for; where a tag became many, those are below its name. Raises RefusedError."""
    own = [s for s in samples if device in (None, s.device)]
    found = [s for s in own if tag in (None, s.tag)] or [s for s in own if s.tag.startswith(f"{tag}/")]
    if device is not None and tag is not None and not found:
        raise _unknown(device, tag, (s.tag for s in own))
    return found


def _is_address(config: Config, device: str, text: str) -> bool:
    """Whether a word names no tag and looks like an address: `holding:100`, `40101`, `i=85`."""
    tags = next((d.tags for d in config.devices if d.name == device), ())
    return all(tag.name != text for tag in tags) and (":" in text or "=" in text or text[:1].isdecimal())


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(**{**row, "quality": GOOD if row["quality"] == GOOD else Quality(row["quality"])})


async def _read(config: Config, device: str | None) -> list[Sample]:
    """Poll and listen until each tag has a sample, good or bad, once; say why a device is out of reach."""
    image = Image()
    clock, metrics = SystemClock(), Metrics()
    complete = asyncio.Event()
    tasks = []

    def look(_news: Batch | DeviceState) -> None:
        if all(s.quality != bad("startup") for s in image.samples()):
            complete.set()

    for key, devices in config.lines.items():
        wanted = [(d, config.groups[d.name]) for d in devices if device in (None, d.name, *(p.name for p in d.parts))]
        if wanted:
            line = Line(
                key.port,
                find(wanted[0][0].driver),
                wanted,
                sink=look,
                image=image,
                on_state=look,
                clock=clock,
                metrics=metrics,
            )
            tasks.append(asyncio.create_task(line.run(), name=f"line {key.port}"))
    try:
        await asyncio.wait_for(complete.wait(), _PATIENCE_S)
    except TimeoutError:
        pass  # what has not come by now reads `bad:startup`
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for text in dict.fromkeys(state.text for state in image.states.values() if state.text):
        print(plain(text), file=sys.stderr)
    return list(image.samples())
