"""`headgate probe … --expect VALUE`: reads what a unit lets be read, and ranks where the value may live."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

import orjson

from gateway.cli.desk import at_device, at_url, gateway_file, is_url, wrong
from gateway.config import load
from gateway.driver import Candidate, Expected, Patch
from gateway.errors import DeviceError, LineError, RefusedError, TagError

if TYPE_CHECKING:
    from gateway.cli.desk import Desk

_REQUESTS = 100
"""How many requests each step of a survey takes: between them the time is looked at."""
_TOLERANCE = "1%"
_SECONDS = 60.0
_GRACE_S = 5.0
"""The second reading gets so much time also where the first took all of it: it tells noise from values."""
_PAUSE_S = 1.0
"""Between the two readings at least, so that what moves has moved."""
_LOOKED_AT_AGAIN = 60
_SURE = 5.0
"""From this score on it is not worth while to read further areas."""
_WIDEST = 4


async def search(options: argparse.Namespace) -> int:
    """Read, read again, rank and tell. Exit code 1 when nothing fits."""
    expected = [_expected(text, options.tolerance or _TOLERANCE) for text in options.expect]
    seconds = _SECONDS if options.seconds is None else options.seconds
    if not seconds > 0:
        raise wrong(f"--seconds {seconds:g}: expected more than 0")
    async with _desk(options) as (desk, unit):
        until = time.monotonic() + seconds
        patches, requests, notes = await _read(desk, unit, expected, options.area, until)
        if not patches:
            raise RefusedError(f"unit {unit} let nothing be read. {'; '.join(notes)}")
        await asyncio.sleep(_PAUSE_S)
        until = max(until, time.monotonic() + _GRACE_S)
        again = await _read_again(desk, unit, patches, desk.driver.rank(patches, (), expected), until)
        ranked = desk.driver.rank(patches, again, expected)
    registers = sum(patch.count for patch in patches)
    if options.json:
        rows = [
            {"expected": wanted.value, "candidates": [asdict(c) for c in found]}
            for wanted, found in zip(expected, ranked, strict=True)
        ]
        document = {"unit": unit, "registers": registers, "requests": requests, "notes": notes, "values": rows}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        for note in notes:
            print(note, file=sys.stderr)
        print(f"{registers:,} registers of unit {unit} read")
        print("\n".join(line for i, found in enumerate(ranked) for line in _lines(options.expect[i], found)))
    return 0 if all(ranked) else 1


def _desk(options: argparse.Namespace) -> AbstractAsyncContextManager[tuple[Desk, int]]:
    """The line, and the unit that somebody means. Raises FileError."""
    if is_url(options.target):
        return at_url(options, options.target)
    config = load(gateway_file(options.target))
    if options.device is None:
        raise wrong("--expect needs a device. Name one of the file: " + ", ".join(d.name for d in config.devices))
    return at_device(options, config, options.device)


def _expected(text: str, tolerance: str) -> Expected:
    """What somebody sees, with as many digits as they see. Raises FileError."""
    try:
        value = float(text)
        share = float(tolerance.removesuffix("%")) / (100 if tolerance.endswith("%") else 1)
    except ValueError:
        raise wrong(f"--expect {text} --tolerance {tolerance}: expected a number, and 1% or 0.01") from None
    if not (0 <= share <= 0.5 and isfinite(value)):
        raise wrong(f"--expect {text} --tolerance {tolerance}: expected a number, and at most 50%")
    if not value:
        raise wrong(f"--expect {text}: 0 stands nearly everywhere. Look when the value is another one")
    digits = len(text.partition(".")[2]) if "e" not in text.lower() else 0
    return Expected(value, digits, share)


async def _read(
    desk: Desk, unit: int, expected: Sequence[Expected], areas: Sequence[str], until: float
) -> tuple[list[Patch], int, list[str]]:
    """Area after area, until the values are found for sure, the time is over, or all was read."""
    patches: list[Patch] = []
    notes: list[str] = []
    requests = 0
    for area in areas or desk.driver.areas():
        print(f"reading {area}", file=sys.stderr, flush=True)
        rest = area
        while rest:
            if time.monotonic() > until:
                notes.append(f"the time is over: {rest} and what follows was not looked at. Say --area or --seconds")
                return patches, requests, notes
            try:
                found = await desk.survey(unit, rest, _REQUESTS)
            except LineError as error:
                if patches or error.cause != "timeout":
                    raise
                raise RefusedError(
                    f"unit {unit} does not answer. `headgate probe '{desk.url}'` finds who does"
                ) from error
            requests += found.requests
            patches += found.patches
            rest = found.rest
            if found.short:
                notes.append(f"{area}: {found.short}")
        if not areas and _is_sure(desk.driver.rank(patches, (), expected)):
            break
    return patches, requests, notes


def _is_sure(ranked: Iterable[Sequence[Candidate]]) -> bool:
    return all(found and found[0].score >= _SURE for found in ranked)


async def _read_again(
    desk: Desk, unit: int, patches: Sequence[Patch], ranked: Iterable[Sequence[Candidate]], until: float
) -> list[Patch]:
    """The registers of the best candidates once more; what cannot be read now is left out."""
    again: dict[str, Patch] = {}
    for candidate in (c for found in ranked for c in found):
        if candidate.address in again or len(again) >= _LOOKED_AT_AGAIN or time.monotonic() > until:
            continue
        try:
            again[candidate.address] = await desk.peek(unit, candidate.address, _reach(candidate.address, patches))
        except (TagError, DeviceError):
            continue
    return list(again.values())


def _reach(address: str, patches: Sequence[Patch]) -> int:
    """How many registers from there on were read before, up to the widest type."""
    table, _, number = address.partition(":")
    for patch in patches:
        head, _, first = patch.address.partition(":")
        if head == table and int(first) <= int(number) < int(first) + patch.count:
            return min(_WIDEST, int(first) + patch.count - int(number))
    return 1


def _lines(text: str, found: Sequence[Candidate]) -> list[str]:
    if not found:
        return [f"{text}: nothing fits. A wider --tolerance, or another --area or --unit, may find it"]
    widths = max(len(c.address) for c in found), max(len(c.type) for c in found)
    lines = [f"{text}:"]
    for c in found:
        order = c.order or "ABCD"
        scale = f"x {c.scale:g}"
        where = f"{c.address:<{widths[0]}}  {c.type:<{widths[1]}}  {order}  {scale:<8}"
        lines.append(f"  {where} = {c.value:<14.8g} {', '.join(c.notes)}".rstrip())
    lines.append(f"  for the mapping:  value: {_entry(found[0])}")
    return lines


def _entry(best: Candidate) -> str:
    """The tag as the mapping file has it."""
    parts: dict[str, Any] = {"address": best.address, "type": best.type}
    if best.order:
        parts["order"] = best.order
    if best.scale != 1:
        parts["scale"] = f"{best.scale:g}"
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"
