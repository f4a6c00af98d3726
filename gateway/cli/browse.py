"""`headgate browse URL|FILE DEVICE`: what a device says it has, as a tree; with --mapping as tags ready to run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.cli.browse_tree import Tree, document, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.driver import Browses, Node
    from gateway.model import Device

SUMMARY = "Show what a device says it has as a tree, or write it as tags ready to run."

_MOST = 200_000
_UNTRUSTED = "BadCertificateUntrusted"
_DEVICE = "plc"
_MOST_NOTES = 20
_LEAST_DIGITS = 12
"""Of a fingerprint that somebody gives: nobody makes a certificate that has the same ones."""
_OPTIONS = {"security": "security", "user": "username", "password": "password", "pki": "pki", "timeout": "timeout"}
"""Options of the command, and the keys of a device that they stand for."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="URL|FILE", help="opc.tcp://HOST:4840, or a gateway file")
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="of a gateway file: the device to browse")
    parser.add_argument(
        "--start", default="", metavar="ADDRESS", help="where to begin: a node id, or a path like /Plant"
    )
    parser.add_argument("--depth", type=int, help="how many levels below that; default all")
    parser.add_argument("--limit", type=int, default=_MOST, help=f"how many nodes at most; default {_MOST}")
    parser.add_argument("--filter", metavar="GLOB", help="only what has such a path: '/Plant/*/Level'; * is anything")
    parser.add_argument("--variables", action="store_true", help="only variables, and what they stand below")
    parser.add_argument("--details", action="store_true", help="with types, units, access and descriptions")
    parser.add_argument("--values", action="store_true", help="with the values of now")
    parser.add_argument("--mapping", type=Path, metavar="OUT.yaml", help="write the variables as tags, ready to run")
    parser.add_argument("--security", help="of a url: the security policy, or none; default the strongest")
    parser.add_argument("--user", help="of a url: the user to log in as")
    parser.add_argument("--password", metavar="REFERENCE", help="of a url: ${env:NAME} or ${file:/path}")
    parser.add_argument("--pki", help="of a url: the folder of certificates; default headgate-data/pki")
    parser.add_argument("--timeout", help="of a url: how long an answer may take; default 10s")
    parser.add_argument(
        "--trust",
        nargs="?",
        const="",
        metavar="FINGERPRINT",
        help="of an unknown server: show its certificate and ask; with its first digits, trust it if it has them",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Browse and show. Exit code 1 where nothing was found."""
    import time

    _fit_together(options)
    place = _place(options)
    began = time.monotonic()
    tree = asyncio.run(_browse(options, place))
    took_s = time.monotonic() - began
    for note in tree.notes:
        print(f"warning: {plain(note)}", file=sys.stderr)
    if tree.is_cut:
        print(f"warning: there is more; this ends at {len(tree.nodes)} nodes. Raise --limit", file=sys.stderr)
    paths = tree.paths()
    chosen = tree.chosen(paths, options.filter, is_variables=options.variables or options.mapping is not None)
    if options.mapping is not None:
        return _write(options, place, list(compress(zip(tree.nodes, paths, strict=True), chosen)))
    if options.json:
        _print_json(tree, paths, chosen)
    else:
        for line in tree.lines(tree.branches(chosen)):
            print(line)
    variables = sum(node.kind == "variable" for node in tree.nodes)
    print(f"{len(tree.nodes)} nodes, {variables} of them variables, in {took_s:.1f} s", file=sys.stderr)
    return 0 if any(chosen) else 1


def _print_json(tree: Tree, paths: Sequence[str], chosen: Sequence[bool]) -> None:
    """One JSON list, a node a line: what is printed need not be held twice."""
    import orjson

    before = "["
    for node, path, is_chosen in zip(tree.nodes, paths, chosen, strict=True):
        if is_chosen:
            print(f"{before}\n{orjson.dumps(document(node, path), default=_hex).decode()}", end="")
            before = ","
    print("[]" if before == "[" else "\n]")


def _hex(value: object) -> str:
    """Bytes for JSON."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _write(options: argparse.Namespace, place: Place, chosen: Sequence[tuple[Node, str]]) -> int:
    """Write these variables with their paths as tags. Raises RefusedError where the file cannot be written."""
    from gateway.cli.browse_mapping import gateway_file, mapping_file
    from gateway.errors import RefusedError

    out: Path = options.mapping
    tags = [(node, path) for node, path in chosen if node.tag and node.is_readable]
    if not tags:
        raise RefusedError("there is no variable that can be read, so there is nothing to write")
    device = place.device
    if place.said is None:
        lines = mapping_file(device.driver, device.name, tags)
        hint = f"Name it in {options.target}, below {device.name}: mapping: {out}"
    else:
        lines = gateway_file(device.name, device.driver, device.url, place.said, tags, out)
        hint = f"Next: `headgate check {out}` and `headgate read {out}`"
    try:
        with out.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except FileExistsError:
        raise RefusedError(f"{out} is there already and stays as it is; give another name") from None
    except OSError as error:
        raise RefusedError(f"{out}: cannot be written: {error.strerror}") from error
    print(f"Wrote {out}: {len(tags)} tags. {hint}.")
    return 0


def _fit_together(options: argparse.Namespace) -> None:
    """Raises FileError for options that nothing would read, or that contradict each other."""
    from gateway.cli.desk import is_url, wrong

    if is_url(options.target):
        if options.device is not None:
            raise wrong(f"'{options.device}': a device stands in a gateway file. Name that in place of the url")
    else:
        said = [f"--{name}" for name in _OPTIONS if getattr(options, name) is not None]
        if said:
            raise wrong(f"{said[0]} is for a url. What is said of a device stands in {options.target}")
        if options.device is None:
            raise wrong(f"browse what? Name a device of {options.target}")
    if options.json and options.mapping is not None:
        raise wrong("--json prints, --mapping writes a file. Take one of them out")
    if options.depth is not None and options.depth < 0:
        raise wrong(f"--depth {options.depth} is none. 0 is the start alone, 1 what is right below it")
    if options.limit < 1:
        raise wrong(f"--limit {options.limit} is none. Write a number from 1")


# --- where ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Who is browsed. `said` are the keys of the device that the command gave, where there is no file."""

    driver: Any
    device: Device
    said: dict[str, str] | None = None


def _place(options: argparse.Namespace) -> Place:
    from gateway.cli.desk import device_of, gateway_file, is_url
    from gateway.config import load
    from gateway.driver import Browses, find
    from gateway.errors import RefusedError

    if is_url(options.target):
        return _at_url(options)
    device = device_of(load(gateway_file(options.target)), options.device)
    driver: Any = find(device.driver)
    if not isinstance(driver, Browses):
        raise RefusedError(f"device '{device.name}' does not tell what it has: its driver '{device.driver}' cannot ask")
    return Place(driver, replace(device, tags=(), parts=()))


def _at_url(options: argparse.Namespace) -> Place:
    """The device of a url. Raises FileError."""
    from pydantic import ValidationError

    from gateway.cli.desk import wrong
    from gateway.driver import find
    from gateway.model import Device
    from gateway.secrets import BASE

    name = _driver_of(options.target)
    driver = find(name)
    said = {key: getattr(options, own) for own, key in _OPTIONS.items() if getattr(options, own) is not None}
    try:
        settings = driver.DeviceOptions.model_validate(said, context={BASE: Path()})
        driver.line_key(options.target, settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = next((own for own, key in _OPTIONS.items() if key in first["loc"]), "")
        raise wrong(f"{f'--{option}: ' if option else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise wrong(str(error)) from None
    return Place(driver, Device(name=_DEVICE, driver=name, url=options.target, options=settings), said)


def _driver_of(url: str) -> str:
    """The installed driver that can browse such a url. Raises FileError."""
    from gateway.cli.desk import wrong
    from gateway.driver import Browses, find, installed

    scheme = urlsplit(url).scheme
    known: list[str] = []
    for name in installed():
        driver: Any = find(name)
        if isinstance(driver, Browses):
            known += driver.SCHEMES
            if scheme in driver.SCHEMES:
                return name
    raise wrong(f"{scheme}:// cannot be browsed. What can: {', '.join(f'{own}://' for own in known)}")


# --- asked ----------------------------------------------------------------------------------------------------------


async def _browse(options: argparse.Namespace, place: Place) -> Tree:
    from gateway.errors import LineError

    try:
        return await _ask(options, place)
    except LineError as error:
        if error.cause == _UNTRUSTED and options.trust is None and options.device is None:
            raise LineError(f"{error}. Without a gateway file: browse with --trust", cause=error.cause) from None
        if error.cause != _UNTRUSTED or options.trust is None:
            raise
        if not await asyncio.to_thread(_trust, options, place):
            raise
    return await _ask(options, place)


async def _ask(options: argparse.Namespace, place: Place) -> Tree:
    """The whole tree, as far as it is wanted. Raises FileError for wrong use, LineError, DeviceError."""
    from gateway.cli.desk import wrong
    from gateway.cli.queue_progress import Progress
    from gateway.clock import SystemClock
    from gateway.driver import Extras
    from gateway.metrics import Metrics

    tree, asked = Tree(), 0
    extras = Extras(details=options.details or options.mapping is not None, values=options.values)
    live: Any = place.driver([place.device], clock=SystemClock(), metrics=Metrics())
    async with live:
        browser: Browses = live
        walk: Any = browser.browse(place.device, options.start, depth=options.depth, most=options.limit, extras=extras)
        try:
            with Progress("browsing", 1, unit="nodes") as progress:
                async with aclosing(walk):
                    async for some in walk:
                        tree.nodes += some.nodes
                        tree.notes += some.notes[: max(0, _MOST_NOTES - len(tree.notes))]
                        tree.is_cut |= some.is_cut
                        progress.expect(some.known, f"browsing, {len(tree.nodes):,} found")
                        progress.advance(some.asked - asked)
                        asked = some.asked
        except ValueError as error:
            raise wrong(f"--start: {error}") from None
    return tree


def _trust(options: argparse.Namespace, place: Place) -> bool:
    """Show the certificates of the server that wait, and trust one if a person says so."""
    from gateway.cli.certified import begins_with, digits_of, lines_of
    from gateway.cli.queue_target import says_yes
    from gateway.clock import SystemClock
    from gateway.driver import Certifies

    if not isinstance(place.driver, Certifies):
        return False
    certificates = place.driver.certificates(place.device, clock=SystemClock())
    waiting = [own for own in certificates.servers() if own.state == "pending" and certificates.url in own.urls]
    digits = digits_of(options.trust)
    for shown in waiting:
        if digits:
            is_meant = len(digits) >= _LEAST_DIGITS and begins_with(shown, digits)
        else:
            print("\n".join(["This server is not known:", *lines_of(shown)]), file=sys.stderr)
            is_meant = says_yes("Is that what the server itself shows? Trust it") is True
        if is_meant:
            certificates.approve(shown)
            return True
    if digits:
        text = f"--trust {options.trust}: no certificate that waits begins so, or these are not {_LEAST_DIGITS} digits"
        print(text, file=sys.stderr)
    return False
