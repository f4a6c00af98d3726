"""`headgate record URL|FILE OUT`: every byte of a line, with time and direction, into a file that people can read."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from gateway.acquisition.line import Line
from gateway.cli.desk import device_of, gateway_file, is_url, line_of, settled, split_unit, tool_of, wrong
from gateway.cli.probe import parse_units
from gateway.clock import SystemClock
from gateway.config import Config, load
from gateway.control import NotRunningError, ask
from gateway.driver import Driver, Records, find
from gateway.errors import RefusedError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.quantities import format_size, parse_size

if TYPE_CHECKING:
    from gateway.model import Device

SUMMARY = "Record a line: every byte with its time and direction, to send in or to replay."

_FETCH_S = 0.5
_STEP = 1000
"""Requests of a survey at once."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="URL|FILE", help="a device's url, or a gateway file")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--device", help="of a gateway file: the line of this device; needed where there are several")
    parser.add_argument("--units", default="1", help="with a url: the units to read, 1-3; default 1")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to record; default 60")
    parser.add_argument("--max-bytes", default="16MiB", help="how large the file may grow; default 16MiB")
    parser.add_argument("--force", action="store_true", help="overwrite the file")


def run(options: argparse.Namespace) -> int:
    """Record and tell how much. Exit code 1 when nothing was heard."""
    try:
        most = parse_size(options.max_bytes)
    except ValueError as error:
        raise wrong(f"--max-bytes: {error}") from None
    if not options.seconds > 0:
        raise wrong(f"--seconds {options.seconds:g}: expected more than 0")
    with _created(options.out, force=options.force) as file:
        reel = Reel(file, most)
        try:
            with contextlib.suppress(KeyboardInterrupt):  # what was recorded until then is there
                asyncio.run(_record(options, reel))
        finally:
            if not reel.size:
                options.out.unlink()
    print(f"{options.out}: {reel.sent} times sent, {reel.heard} times heard, {format_size(reel.size)}{reel.end}")
    return 0 if reel.heard else 1


def _created(out: Path, *, force: bool) -> TextIO:
    """The file, opened to be written. Raises RefusedError."""
    try:
        return cast(TextIO, out.open("w" if force else "x", encoding="ascii", errors="backslashreplace"))
    except OSError as error:
        cure = ". It is there already: name another one, or give --force" if isinstance(error, FileExistsError) else ""
        raise RefusedError(f"{out}: {(error.strerror or str(error)).lower()}{cure}") from error


class Reel:
    """A recording on its way into a file that grows to `most` bytes."""

    def __init__(self, file: TextIO, most: int) -> None:
        self._file = file
        self._most = most
        self.full = asyncio.Event()
        self.size = self.sent = self.heard = 0

    def __repr__(self) -> str:
        return f"<reel, {self.size} of {self._most} bytes>"

    def note(self, line: str) -> None:
        """One line of it."""
        if self.full.is_set():
            return
        self.size += len(line) + 1
        if self.size > self._most:
            self.full.set()
            return
        self._file.write(line + "\n")
        if not line.startswith("#"):
            self.sent += " > " in line
            self.heard += " < " in line

    @property
    def end(self) -> str:
        """Why it ended before its time, for people."""
        return "; it ended because the file is full: say --max-bytes" if self.full.is_set() else ""


async def _record(options: argparse.Namespace, reel: Reel) -> None:
    if is_url(options.target):
        await _until_full(_read_device(options, reel), reel, options.seconds)
        return
    config = load(gateway_file(options.target))
    device = _device(config, options.device)
    tool_of(device)
    try:
        begun = ask(config.spool.path, {"do": "record", "device": device.name, "step": "start"})
    except NotRunningError:
        await _until_full(_poll(config, device, reel), reel, options.seconds)
    else:
        print(f"through the running gateway '{config.gateway}'", file=sys.stderr)
        for line in begun["lines"]:
            reel.note(line)
        await _fetch(config.spool.path, device.name, reel, options.seconds)


def _device(config: Config, name: str | None) -> Device:
    """The device that was named, or the first of the only line. Raises FileError and RefusedError."""
    if name is not None:
        return device_of(config, name)
    lines = list(config.lines.values())
    if len(lines) != 1:
        raise wrong(f"the file has {len(lines)} lines. Name one by --device, one of: {', '.join(config.groups)}")
    return lines[0][0]


async def _until_full(work: Any, reel: Reel, seconds: float) -> None:
    """Work until the time is over, or the file is full, or the work fails."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(reel.full.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- of the running gateway -----------------------------------------------------------------------------------------


async def _fetch(folder: Path, device: str, reel: Reel, seconds: float) -> None:
    """Fetch the recording piece by piece, and stop it at the end."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and not reel.full.is_set():
            await asyncio.sleep(min(_FETCH_S, max(0.0, until - time.monotonic())))
            for line in ask(folder, {"do": "record", "device": device, "step": "fetch"})["lines"]:
                reel.note(line)
    finally:
        for line in ask(folder, {"do": "record", "device": device, "step": "stop"})["lines"]:
            reel.note(line)


# --- of a file that nobody runs -------------------------------------------------------------------------------------


async def _poll(config: Config, device: Device, reel: Reel) -> None:
    """Poll the device's line as a gateway would. Nothing is sent anywhere."""
    devices = line_of(config, device)
    kind = find(device.driver)

    def make(devices: Sequence[Device], **parts: Any) -> Driver:
        driver = kind(devices, **parts)
        _begin(driver, reel.note)
        return driver

    line = Line(
        device.url,
        cast(type[Driver], make),
        [(d, config.groups[d.name]) for d in devices],
        sink=lambda _: None,
        image=Image(),
        on_state=lambda _: None,
        clock=SystemClock(),
        metrics=Metrics(),
    )
    await line.run()


def _begin(driver: object, note: Callable[[str], None]) -> None:
    if not isinstance(driver, Records):
        raise RefusedError("the driver of this line cannot record")
    driver.record(note)


# --- of a device that no file describes -----------------------------------------------------------------------------


async def _read_device(options: argparse.Namespace, reel: Reel) -> None:
    """Ask each unit who it is and read all that it lets be read, again and again: a copy of the device."""
    url, said = split_unit(options.target)
    units = parse_units(options.units) if said is None else (said,)
    driver = settled(url)
    live: Any = driver.bare(url, units, timeout_s=None, clock=SystemClock(), metrics=Metrics())
    _begin(live, reel.note)
    async with live:
        while True:
            for unit in units:
                await live.discover(unit, thorough=True)
                for area in driver.areas():
                    rest = area
                    while rest:
                        rest = (await live.survey(unit, rest, requests=_STEP)).rest
