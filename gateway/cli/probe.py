"""`headgate probe URL|FILE [DEVICE]`: who answers on a line, who that is, and where a value lives that one can see."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from typing import Any

import orjson

from gateway.cli.desk import (
    Desk,
    device_of,
    driver_of,
    gateway_file,
    is_url,
    line_of,
    of_device,
    opened,
    split_unit,
    timeout_of,
    tool_of,
    unit_of,
    wrong,
)
from gateway.config import Config, load
from gateway.driver import Decoding, Finding
from gateway.errors import HeadgateError, RefusedError
from gateway.mapping.identify import fits, signs
from gateway.model import Device, Value

SUMMARY = "Find out who answers on a line, which profile fits, and with --expect where a value lives."

_PATIENCE_S = 0.5
_SETTING_PATIENCE_S = 0.2
"""How long each unit may take; devices answer within 100 ms, at low baud rates somewhat later."""
_SHORTEST_S, _LONGEST_S = 0.01, 60.0
_FIRST_UNITS = 4
"""So many units are tried at each baud rate before any others are."""
_SETTING_BUDGET_S = 180.0
_FEW = 8
"""Units that somebody named are asked in more than one way, if they are so few."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="URL|FILE", help="tcp://HOST, rtu:///dev/ttyUSB0, …, or a gateway file")
    parser.add_argument("device", nargs="?", help="of a gateway file: the line of this device")
    parser.add_argument("--units", help="the units to look for: 1-10,42; default: the usual ones")
    parser.add_argument("--timeout", help="how long a unit may take to answer; default 500ms")
    parser.add_argument(
        "--expect", action="append", default=[], metavar="VALUE", help="a value you can see; repeat it for more"
    )
    parser.add_argument("--tolerance", help="how far off a value may be, with --expect; default 1%%")
    parser.add_argument(
        "--unit", type=int, help="the only unit to look for; with --expect the one that holds the value"
    )
    parser.add_argument(
        "--area",
        action="append",
        default=[],
        help="where to look, with --expect: holding:0-999 or 40001-41000; repeat it for more",
    )
    parser.add_argument("--seconds", type=float, help="how long to look, with --expect; default 60")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--yaml", action="store_true", help="print what to paste into a gateway file")


def run(options: argparse.Namespace) -> int:
    """Look and tell. Exit code 1 when nothing was found."""
    _fit_together(options)
    if options.expect:
        from gateway.cli.expect import search

        return asyncio.run(search(options))
    scans = asyncio.run(_scan_all(options))
    if options.json:
        print(orjson.dumps([_document(scan) for scan in scans], option=orjson.OPT_INDENT_2).decode())
    elif options.yaml:
        print("\n".join(_snippet(scans)))
    else:
        print("\n".join(line for scan in scans for line in _table(scan)))
    return 0 if any(scan.found for scan in scans) else 1


def _fit_together(options: argparse.Namespace) -> None:
    """Raises FileError for an option that nothing would read."""
    for name in () if options.expect else ("area", "tolerance", "seconds"):
        if getattr(options, name) not in (None, []):
            raise wrong(f"--{name} is for the search of a value. Say --expect VALUE with it")
    if options.expect and options.units is not None:
        raise wrong("--units is for finding out who is there. With --expect name the one unit by --unit")
    if options.expect and options.yaml:
        raise wrong("--yaml is for finding out who is there. With --expect the tag is printed as a file has it")
    if options.unit is not None:
        if options.units is not None:
            raise wrong("say --unit or --units, not both")
        if not 0 <= options.unit <= 255:
            raise wrong(f"--unit {options.unit}: unit {options.unit} is none. Units go from 0 to 255")


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answered, and the profiles that fit it."""

    finding: Finding
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """One line and who was found on it, out of how many units that were asked."""

    driver: str
    url: str
    asked: int
    found: tuple[Found, ...]


def parse_units(text: str | None) -> tuple[int, ...]:
    """`1-10,42` as numbers, in that order; empty where nobody said. Raises FileError."""
    units: dict[int, None] = {}
    for part in (text or "").split(",") if text else []:
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or not (last if dash else first).isdecimal():
            raise wrong(f"--units {text}: '{part}' is no unit. Write 1-10,42")
        span = range(int(first), int(last or first) + 1)
        if not span or span[-1] > 255:
            raise wrong(f"--units {text}: '{part}' is no span of units. They go from 0 to 255, the lower one first")
        units |= dict.fromkeys(span)
    return tuple(units)


def patience(options: argparse.Namespace, usual: float) -> float:
    """How long a unit may take. Raises FileError."""
    said = timeout_of(options)
    if said is None:
        return usual
    if not _SHORTEST_S <= said <= _LONGEST_S:
        raise wrong(f"--timeout {options.timeout} is outside 10ms … 1m")
    return said


# --- lines ----------------------------------------------------------------------------------------------------------


async def _scan_all(options: argparse.Namespace) -> list[Scan]:
    units = parse_units(options.units) if options.unit is None else (options.unit,)
    if is_url(options.target):
        if options.device is not None:
            raise wrong(f"'{options.device}': a device stands in a gateway file. Name that in place of the url")
        return [await _scan_url(options, units)]
    config = load(gateway_file(options.target))
    if options.device is not None:
        device = device_of(config, options.device)
        usual = units or _usual(device, config)
        return [await _scan_device(options, config, device, usual)]
    scans = []
    for devices in config.lines.values():
        known = units or tuple(dict.fromkeys(unit_of(device) for device in devices))
        scans.append(await _scan_device(options, config, devices[0], known))
    return scans


def _usual(device: Device, config: Config) -> tuple[int, ...]:
    """The units of the file first, then those that are usual on such a line."""
    own = [unit_of(other) for other in line_of(config, device)]
    return tuple(dict.fromkeys([*own, *tool_of(device).units(device.url)]))


async def _scan_url(options: argparse.Namespace, units: tuple[int, ...]) -> Scan:
    url, said = split_unit(options.target)
    name, driver = driver_of(url)
    wanted = units or (() if said is None else (said,))
    urls = driver.settings(url)
    if len(urls) > 1:
        url = await _find_setting(urls, wanted or driver.units(url), patience(options, _SETTING_PATIENCE_S))
    asked = wanted or driver.units(url)
    patience_s = patience(options, _PATIENCE_S)
    async with opened(url, asked) as desk:
        return await _scan(desk, name, asked, patience_s, named=bool(wanted))


async def _scan_device(options: argparse.Namespace, config: Config, device: Device, units: tuple[int, ...]) -> Scan:
    patience_s = patience(options, _PATIENCE_S)
    async with of_device(config, device) as desk:
        return await _scan(
            desk, device.driver, units, patience_s, named=options.units is not None or options.unit is not None
        )


async def _scan(desk: Desk, name: str, units: Sequence[int], patience_s: float, *, named: bool) -> Scan:
    """Ask one unit after the other, and whoever answers who it is."""
    thorough = named and len(units) <= _FEW
    known = [sign for sign in signs() if sign.driver in ("", name)]
    found: list[Found] = []
    for i, unit in enumerate(units, 1):
        _progress(f"unit {unit} ({i} of {len(units)}), {len(found)} found")
        finding = await desk.discover(unit, patience_s=patience_s, thorough=thorough)
        if finding is not None:
            look = _looker(desk, unit)
            profiles = [sign.profile for sign in known if await fits(sign, finding, look)]
            found.append(Found(finding, tuple(profiles)))
    _progress("")
    return Scan(name, desk.url, len(units), tuple(found))


def _looker(desk: Desk, unit: int) -> Any:
    """Reads a value for a profile's sign; what cannot be read is no value."""

    async def look(address: str, kind: str, length: int | None) -> Value:
        size = (length + 1) // 2 if length else _REGISTERS.get(kind[-2:], 1)
        try:
            patch = await desk.peek(unit, address, size)
            values: list[Decoding] = desk.driver.decodings(patch, kind=kind or "uint16")
        except (HeadgateError, ValueError):
            return None
        return values[0].value if values else None

    return look


_REGISTERS = {"32": 2, "64": 4}


async def _find_setting(urls: Sequence[str], units: Sequence[int], patience_s: float) -> str:
    """The url whose baud rate and parity somebody answers to. Raises RefusedError where nobody does.

    The first few units are tried at every setting before any others are.
    """
    until = time.monotonic() + _SETTING_BUDGET_S
    for wave in (units[:_FIRST_UNITS], units[_FIRST_UNITS:]):
        for url in urls:
            if wave:
                _say(f"trying {url.partition('?')[2]}, units {wave[0]} to {wave[-1]}")
            async with opened(url, units, timeout_s=patience_s) as desk:
                for unit in wave:
                    if time.monotonic() > until:
                        raise RefusedError(f"nobody answered within {_SETTING_BUDGET_S:g} s. {_NOBODY}")
                    if await desk.discover(unit, patience_s=patience_s, thorough=False) is not None:
                        _say(f"found: {url}")
                        return url
    raise RefusedError(f"nobody answered at any baud rate. {_NOBODY}")


_NOBODY = "Are A and B the right way round, is the device on, and is its unit among --units?"


# --- told -----------------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(text: str) -> None:
    """One line that is written over, where a person looks on."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _document(scan: Scan) -> dict[str, Any]:
    return {
        "driver": scan.driver,
        "url": scan.url,
        "asked": scan.asked,
        "units": [{**asdict(found.finding), "profiles": found.profiles} for found in scan.found],
    }


def _table(scan: Scan) -> list[str]:
    if not scan.found:
        cure = _NOBODY if scan.url.startswith(("rtu:", "ascii:")) else "Is its unit among --units?"
        who = f"none of {scan.asked} units answered" if scan.asked > 1 else "the unit did not answer"
        return [f"{scan.url}: {who}. {cure}"]
    lines = [f"{scan.url}: {len(scan.found)} of {scan.asked} units answered"]
    for alike in _alike(scan.found):
        finding = alike[0].finding
        lines.append(f"  unit {_spans([found.finding.unit for found in alike]):<4} {finding.answer}")
        lines += [f"            {name}: {text}" for name, text in finding.identity.items()]
        for model in finding.models:
            name = f" ({model.name})" if model.name else ""
            lines.append(f"            SunSpec model {model.number}{name} at {model.address}, {model.length} registers")
        lines += [f"            profile: {name}" for name in alike[0].profiles]
    if len(scan.found) == scan.asked and scan.asked > _FEW:
        lines.append("  It answers to every unit: most likely a gateway, or a device that does not look at the number.")
    return lines


def _alike(found: Sequence[Found]) -> list[list[Found]]:
    """Units of which nothing differs but the number, together."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(repr((replace(one.finding, unit=0), one.profiles)), []).append(one)
    return list(groups.values())


def _spans(numbers: Sequence[int]) -> str:
    """`1, 3-10, 42`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _snippet(scans: Sequence[Scan]) -> list[str]:
    """The section of a gateway file that reads what was found."""
    lines = ["devices:"]
    names: set[str] = set()
    for scan in scans:
        for found in (one for alike in _alike(scan.found) for one in (alike if len(alike) <= _FEW else alike[:1])):
            lines.append(f"  {_unlike(_name(found), names)}:")
            lines += [f"    driver: {scan.driver}", f"    url: {scan.url}", f"    unit: {found.finding.unit}"]
            if found.profiles:
                others = f"  # or {', '.join(found.profiles[1:])}" if found.profiles[1:] else ""
                lines.append(f"    profile: {found.profiles[0]}{others}")
            else:
                lines += [
                    f"    tags:  # headgate probe '{scan.url}' --unit {found.finding.unit} --expect VALUE finds more",
                    "      first: {address: holding:0}",
                ]
    return lines if len(lines) > 1 else ["devices: {}"]


def _unlike(name: str, names: set[str]) -> str:
    """A name that is not among `names`, where it stands from then on: units of two lines may have the same."""
    free = next(n for n in chain([name], (f"{name}_{i}" for i in count(2))) if n not in names)
    names.add(free)
    return free


def _name(found: Found) -> str:
    """A name for the device: of its profile, or what it says of itself; with its unit, so that none stands twice."""
    identity = found.finding.identity
    said = identity.get("model") or identity.get("product") or identity.get("name") or "device"
    text = found.profiles[0].rpartition("/")[2] if found.profiles else said
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in text.lower()).strip("_")
    return f"{plain[:48] or 'device'}_{found.finding.unit}"
