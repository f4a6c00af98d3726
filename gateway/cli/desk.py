"""The line that a tool asks: opened for it by a url or out of a file, or the one that a running gateway has open."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from gateway.clock import SystemClock
from gateway.control import NotRunningError, ask
from gateway.driver import Browses, Driver, Finding, Model, Patch, Peeks, Survey, find, installed
from gateway.errors import FileError, LineError, Mistake, RefusedError
from gateway.metrics import Metrics
from gateway.model import Device, Place
from gateway.quantities import parse_duration
from gateway.tools import patch_of

if TYPE_CHECKING:
    from gateway.config import Config

_LONGEST_ANSWER_S = 600.0
_HOST = re.compile(r"(localhost|[0-9]+(\.[0-9]+){3})(:[0-9]+)?")
_REOPENED = 100
"""A scan that meets silence only makes the driver give up its connection again and again; not for ever."""


class Desk(Protocol):
    """A line that can be asked. `url` is what a file would say of it; `driver` knows how to read what comes."""

    url: str
    driver: type[Peeks]

    async def discover(self, unit: int, *, patience_s: float | None, thorough: bool) -> Finding | None:
        """Whether that unit is there. Raises LineError or ControlError."""

    async def peek(self, unit: int, address: str, count: int) -> Patch:
        """Registers or bits now. Raises TagError, DeviceError, LineError, ControlError, and FileError for wrong use."""

    async def survey(self, unit: int, area: str, requests: int) -> Survey:
        """What can be read of an area. Raises LineError, ControlError, and FileError for wrong use."""


def is_url(text: str) -> bool:
    """Whether somebody named a line and no file."""
    return "://" in text


def gateway_file(text: str) -> Path:
    """The path of a gateway file. Raises FileError where a port or a host was named without its scheme."""
    path = Path(text)
    if path.is_char_device():
        raise wrong(f"{text} is a serial port and no gateway file. Write rtu://{path.absolute()}")
    if _HOST.fullmatch(text) and not path.exists():
        raise wrong(f"there is no file '{text}'. A device on the network is written tcp://{text}")
    return path


def wrong(text: str) -> FileError:
    """Wrong use of a command: exit code 2."""
    return FileError([Mistake(Place(), text)])


def split_unit(url: str) -> tuple[str, int | None]:
    """A url without `unit=`, and the unit. Raises FileError."""
    plain, _, query = url.partition("?")
    pairs = query.split("&") if query else []
    said = [pair.removeprefix("unit=") for pair in pairs if pair.startswith("unit=")]
    if not said:
        return url, None
    if not said[0].isdecimal() or int(said[0]) > 255:
        raise wrong(f"unit={said[0]} is none. Units go from 0 to 255")
    rest = "&".join(pair for pair in pairs if not pair.startswith("unit="))
    return f"{plain}?{rest}" if rest else plain, int(said[0])


def driver_of(url: str) -> tuple[str, type[Peeks]]:
    """The installed driver whose urls have that scheme, and its name. Raises FileError."""
    scheme = urlsplit(url).scheme
    known: list[str] = []
    for name in installed():
        driver: Any = find(name)
        if isinstance(driver, Peeks):
            known += driver.SCHEMES
            if scheme in driver.SCHEMES:
                return name, cast(type[Peeks], driver)
        elif scheme in getattr(driver, "SCHEMES", ()):
            raise wrong(_tags_only(name, url, url))
    raise wrong(f"no installed driver has urls like {scheme}://. There are {', '.join(f'{s}://' for s in known)}")


def _tags_only(name: str, what: str, browsed: str) -> str:
    """What somebody is told who asks for more than tags, and where a driver shows what else there is."""
    cure = f". `headgate browse {browsed} --values` shows what it has" if isinstance(find(name), Browses) else ""
    return f"{what}: the driver '{name}' reads and writes tags, and its line can be neither probed nor recorded{cure}"


def tool_of(device: Device) -> type[Peeks]:
    """The driver of a device, to be asked without its tags. Raises RefusedError."""
    driver: Any = find(device.driver)
    if isinstance(driver, Peeks):
        return cast(type[Peeks], driver)
    raise RefusedError(_tags_only(device.driver, f"device '{device.name}'", f"FILE {device.name}"))


def settled(url: str) -> type[Peeks]:
    """The driver of a url that leaves no setting of its line open. Raises FileError."""
    _, driver = driver_of(url)
    if len(driver.settings(url)) > 1:
        raise wrong(f"{url} does not say the baud rate. `headgate probe {url}` finds it")
    return driver


def timeout_of(options: argparse.Namespace) -> float | None:
    """What `--timeout` says; None where nobody said. Raises FileError."""
    try:
        return None if options.timeout is None else parse_duration(options.timeout)
    except ValueError as error:
        raise wrong(f"--timeout: {error}") from None


# --- opened by us ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Own:
    """A line that we have opened ourselves."""

    url: str
    driver: type[Peeks]
    live: Any
    reopened: int = 0

    async def discover(self, unit: int, *, patience_s: float | None, thorough: bool) -> Finding | None:
        """Whether that unit is there. A connection that the driver gave up for lack of answers is opened anew."""
        try:
            found: Finding | None = await self.live.discover(unit, patience_s=patience_s, thorough=thorough)
        except ValueError as error:
            raise wrong(str(error)) from None
        except LineError as error:
            self.reopened += 1
            if error.cause != "timeout" or self.reopened > _REOPENED:
                raise
            await self.live.__aexit__(None, None, None)
            await self.live.__aenter__()
            return None
        return found

    async def peek(self, unit: int, address: str, count: int) -> Patch:
        """Registers or bits now."""
        try:
            patch: Patch = await self.live.peek(unit, address, count)
        except ValueError as error:
            raise wrong(str(error)) from None
        return patch

    async def survey(self, unit: int, area: str, requests: int) -> Survey:
        """What can be read of an area."""
        try:
            found: Survey = await self.live.survey(unit, area, requests=requests)
        except ValueError as error:
            raise wrong(str(error)) from None
        return found


@asynccontextmanager
async def opened(url: str, units: Sequence[int], *, timeout_s: float | None = None) -> AsyncIterator[Own]:
    """The line of a url. Raises FileError and LineError."""
    _, driver = driver_of(url)
    try:
        live: Any = driver.bare(url, units, timeout_s=timeout_s, clock=SystemClock(), metrics=Metrics())
    except ValueError as error:
        raise wrong(str(error)) from None
    async with live:
        yield Own(url, driver, live)


@asynccontextmanager
async def at_url(options: argparse.Namespace, text: str) -> AsyncIterator[tuple[Own, int]]:
    """The line of a url, and the unit to ask: that of `--unit`, else the url's own, else 1."""
    url, said = split_unit(text)
    unit = next((number for number in (options.unit, said) if number is not None), 1)
    if not 0 <= unit <= 255:
        raise wrong(f"--unit {unit} is none. Units go from 0 to 255")
    settled(url)
    async with opened(url, (unit,), timeout_s=timeout_of(options)) as desk:
        yield desk, unit


# --- of a file ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Running:
    """A line of the running gateway; `device` is one of those on it."""

    url: str
    driver: type[Peeks]
    folder: Path
    device: str

    async def discover(self, unit: int, *, patience_s: float | None, thorough: bool) -> Finding | None:
        """Whether that unit is there."""
        found = self._ask("discover", unit=unit, patience_s=patience_s, thorough=thorough)["finding"]
        if found is None:
            return None
        return Finding(
            found["unit"], found["answer"], found["identity"], tuple(Model(**model) for model in found["models"])
        )

    async def peek(self, unit: int, address: str, count: int) -> Patch:
        """Registers or bits now."""
        return patch_of(self._ask("peek", unit=unit, address=address, count=count)["patch"])

    async def survey(self, unit: int, area: str, requests: int) -> Survey:
        """What can be read of an area."""
        found = self._ask("survey", unit=unit, area=area, requests=requests)
        return Survey(tuple(map(patch_of, found["patches"])), found["requests"], found["rest"], found["short"])

    def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        return ask(self.folder, {"do": verb, "device": self.device, **fields}, timeout_s=_LONGEST_ANSWER_S)


@asynccontextmanager
async def of_device(config: Config, device: Device) -> AsyncIterator[Desk]:
    """The line of a device: that of the running gateway, or opened by us where none runs.

    Raises RefusedError where its driver cannot be asked, ControlError and LineError.
    """
    kind = tool_of(device)
    driver: Any = kind
    try:
        ask(config.spool.path, {"do": "status"})
    except NotRunningError:
        whole: Driver = driver(line_of(config, device), clock=SystemClock(), metrics=Metrics())
        async with whole:
            yield Own(device.url, kind, whole)
    else:
        print(f"through the running gateway '{config.gateway}'", file=sys.stderr)
        yield Running(device.url, kind, config.spool.path, device.name)


@asynccontextmanager
async def at_device(options: argparse.Namespace, config: Config, name: str) -> AsyncIterator[tuple[Desk, int]]:
    """The line of the device of that name, and the unit to ask: that of `--unit`, else the device's own."""
    device = device_of(config, name)
    async with of_device(config, device) as desk:
        yield desk, unit_of(device) if options.unit is None else options.unit


def line_of(config: Config, device: Device) -> Sequence[Device]:
    """All devices that share its line."""
    return next(found for found in config.lines.values() if any(d.name == device.name for d in found))


def device_of(config: Config, name: str) -> Device:
    """A device of the file; a part stands for its whole. Raises RefusedError."""
    named = {device.name: device for device in config.devices}
    if name not in named:
        raise RefusedError(f"there is no device '{name}'; the file has: {', '.join(named)}")
    found = named[name]
    return named[found.part_of] if found.part_of else found


def unit_of(device: Device) -> int:
    """The unit that the file says; 1 where its driver knows none."""
    return int(getattr(device.options, "unit", 1))
