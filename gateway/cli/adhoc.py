"""One address of a device, without a tag: `headgate read` shows every decoding side by side, `headgate write` sends."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from gateway.cli.desk import at_url, driver_of, wrong
from gateway.driver import Decoding, Patch, Writes
from gateway.errors import FieldError, HeadgateError, RefusedError, TagError
from gateway.mapping.document import resolve_scalar
from gateway.model import Device, Tag, Value, WriteRules

if TYPE_CHECKING:
    from gateway.cli.desk import Desk

_USUAL_COUNT = 4
"""Registers that hold the widest number."""


def declare(parser: argparse.ArgumentParser) -> None:
    """The arguments that both commands share."""
    parser.add_argument("--unit", type=int, help="the unit to ask, where it is not the device's own; default 1")
    parser.add_argument("--type", default="", help="the type, float32 for example")
    parser.add_argument("--order", default="", help="the order of its bytes: ABCD, CDAB, BADC or DCBA")
    parser.add_argument("--timeout", help="how long an answer may take; default 1s")


# --- reading --------------------------------------------------------------------------------------------------------


def show(options: argparse.Namespace, at: AbstractAsyncContextManager[tuple[Desk, int]], address: str) -> int:
    """Read one address and print what it may mean. Exit code 1 when it cannot be read."""
    return asyncio.run(_show(options, at, address))


async def _show(options: argparse.Namespace, at: AbstractAsyncContextManager[tuple[Desk, int]], address: str) -> int:
    async with at as (desk, unit):
        patch = await _peek(desk, unit, address, options.count)
        try:
            decodings = desk.driver.decodings(patch, kind=options.type, order=options.order)
        except ValueError as error:
            raise wrong(str(error)) from None
    if options.json:
        rows = [asdict(d) for d in decodings]
        document = {"unit": unit, "address": patch.address, "count": patch.count, "hex": patch.data.hex()}
        print(orjson.dumps({**document, "decodings": rows}, option=orjson.OPT_INDENT_2, default=str).decode())
    else:
        print(f"{patch.address} of unit {unit} at {desk.url}, {_counted(patch)}")
        print("\n".join([*_words(patch), "", *_table(decodings, single=bool(options.type))]))
    return 0


async def _peek(desk: Desk, unit: int, address: str, count: int | None) -> Patch:
    """As many registers as were asked for; where nobody said, as many up to four as the device gives."""
    if count is not None:
        return await desk.peek(unit, address, count)
    sizes = (_USUAL_COUNT, 2, 1)
    for size in sizes:
        try:
            return await desk.peek(unit, address, size)
        except (TagError, HeadgateError) as error:
            if size == sizes[-1] or (isinstance(error, FieldError) and not isinstance(error, TagError)):
                raise
    raise AssertionError


def _counted(patch: Patch) -> str:
    what = "bit" if _is_bits(patch) else "register"
    return f"{patch.count} {what}{'s' if patch.count > 1 else ''}"


def _is_bits(patch: Patch) -> bool:
    return len(patch.data) != patch.count * 2


def _words(patch: Patch) -> list[str]:
    """Each register as hexadecimal, bits and text."""
    if _is_bits(patch):
        return []
    table, _, first = patch.address.partition(":")
    lines = [f"  {'register':<14}  hex   bit 15 … 0           text"]
    for i in range(patch.count):
        word = patch.data[2 * i : 2 * i + 2]
        bits = f"{int.from_bytes(word):016b}"
        grouped = " ".join(bits[at : at + 4] for at in range(0, 16, 4))
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in word)
        lines.append(f"  {table}:{int(first) + i:<{13 - len(table)}}  {word.hex().upper()}  {grouped}  {text}")
    return lines


def _table(decodings: Sequence[Decoding], *, single: bool) -> list[str]:
    """A row a type, a column an order; of one type its values, one after the other."""
    if single or all(not d.order for d in decodings):
        return [f"  {decodings[0].type}{f' {decodings[0].order}' if decodings[0].order else ''}"] + [
            f"    {_text(d.value)}" for d in decodings
        ]
    orders = list(dict.fromkeys(d.order for d in decodings))
    rows: dict[str, dict[str, str]] = {}
    for d in decodings:
        rows.setdefault(d.type, {})[d.order] = _text(d.value)
    widths = [max(len(order), *(len(row.get(order, "")) for row in rows.values())) for order in orders]
    lines = ["  " + "  ".join(["type    ", *(f"{o:<{w}}" for o, w in zip(orders, widths, strict=True))]).rstrip()]
    for kind, row in rows.items():
        cells = [f"{row.get(order, ''):<{width}}" for order, width in zip(orders, widths, strict=True)]
        lines.append("  " + "  ".join([f"{kind:<8}", *cells]).rstrip())
    return lines


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


# --- writing --------------------------------------------------------------------------------------------------------


def send(options: argparse.Namespace, address: str, text: str) -> int:
    """Write one value to `options.file`, which is a url, and read it back. Exit code 1 when it was not taken.

    `options.yes` asks nobody. What a gateway runs is written through its tags, and their rules: that needs its file.
    """
    return asyncio.run(_send(options, address, text))


async def _send(options: argparse.Namespace, address: str, text: str) -> int:
    from gateway.cli.queue_target import confirm

    tag = Tag(name="value", address=address, type=options.type, order=options.order, write=WriteRules())
    value = _value(text)
    how = " ".join(filter(None, (tag.type, tag.order)))
    async with at_url(options, options.file) as (desk, unit):
        live = desk.live
        can_write = isinstance(live, Writes)
        if not can_write:
            raise RefusedError(f"the driver '{driver_of(desk.url)[0]}' cannot write")
        try:
            device: Device = live.station(unit)
            live.check_write(device, tag)
            sent = live.spell(device, tag, value)
            what = f"Write {text}{f' as {how}' if how else ''} to {address} of unit {unit} at {desk.url} (sent: {sent})"
            if not confirm(options, what):
                return 1
            await live.write(device, tag, value)
            now = await live.read_tag(device, tag)
        except ValueError as error:
            raise wrong(f"{address}: {error}") from None
    if options.json:
        print(orjson.dumps({"address": address, "unit": unit, "written": value, "value": now}, default=str).decode())
    else:
        print(f"written; it reads back as {_text(now)}")
    return 0


def _value(text: str) -> Value:
    """The value of a word on the command line: a number, true, false, on, off, or text."""
    words: dict[str, Value] = {"on": True, "off": False}
    plain: Value = resolve_scalar(text)
    return words.get(text.lower(), plain)
