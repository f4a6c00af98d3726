"""`headgate trust FILE [DEVICE]`: which servers' certificates are trusted and which wait; approve or remove one.

Where no certificate of a device's server is known yet, the server is asked for it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.certificates import Certificates, ServerCertificate
    from gateway.cli.certified import Holder

SUMMARY = "List the servers' certificates, those that wait to be approved first; approve or remove one."

_LEAST_DIGITS = 4
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate in a folder; `devices` are those whose servers showed it, or all where nobody knows."""

    devices: tuple[str, ...]
    certificates: Certificates
    shown: ServerCertificate


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from gateway.cli import certified

    certified.declare(parser)
    what = "the first digits of its thumbprint or SHA-256"
    verbs = parser.add_mutually_exclusive_group()
    verbs.add_argument(
        "--approve", metavar="FINGERPRINT", help=f"trust the certificate with these digits: {what}; all: all that wait"
    )
    verbs.add_argument(
        "--remove",
        metavar="FINGERPRINT",
        help="trust it no more, it waits again then; one that waits already is forgotten",
    )
    parser.add_argument("--fetch", action="store_true", help="ask the server for its certificate, also if one is known")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """List, approve or remove. Exit code 1 where a server could not be asked, or the person said no."""
    from gateway.cli import certified

    holders = certified.holders(options)
    unasked = _fetch(holders, options)
    rows = _rows(holders, options.device)
    if options.approve is not None:
        return _approve(rows, options)
    if options.remove is not None:
        return _remove(rows, options)
    _show(rows, holders, options)
    return 1 if unasked else 0


# --- asked of the servers -------------------------------------------------------------------------------------------


def _fetch(holders: Sequence[Holder], options: argparse.Namespace) -> bool:
    """Ask those servers whose certificates nobody knows; gives whether one of them did not answer."""
    from gateway.errors import LineError

    has_failed, asked = False, set()
    for holder in holders:
        certificates = holder.certificates
        key = certificates.folder, certificates.url
        if key in asked or not (options.fetch or _is_wanted(certificates, options)):
            continue
        asked.add(key)
        try:
            shown = asyncio.run(certificates.fetch())
        except LineError as error:
            print(f"{holder.device}: {error}", file=sys.stderr)
            has_failed = True
            continue
        if not shown:
            print(f"{holder.device}: {certificates.url} shows no certificate", file=sys.stderr)
    return has_failed


def _is_wanted(certificates: Certificates, options: argparse.Namespace) -> bool:
    """Whether a listing or an approval would have nothing to show of that server."""
    if certificates.unchecked or options.remove is not None:
        return False
    return not any(_is_of(certificates, shown) for shown in certificates.servers())


def _is_of(certificates: Certificates, shown: ServerCertificate) -> bool:
    return not shown.urls or certificates.url in shown.urls


# --- found ----------------------------------------------------------------------------------------------------------


def _rows(holders: Sequence[Holder], device: str | None) -> list[Row]:
    """Each certificate once, with the devices it is about; of one device, its own only."""
    from gateway.cli.certified import by_folder

    rows = []
    for group in by_folder(holders).values():
        certificates = group[0].certificates
        for shown in certificates.servers():
            devices = tuple(holder.device for holder in group if _is_of(holder.certificates, shown))
            if devices or device is None:
                rows.append(Row(devices, certificates, shown))
    return sorted(rows, key=lambda row: row.shown.state)  # pending before trusted, each as it came


def _matching(rows: Sequence[Row], digits: str) -> list[Row]:
    """Those whose fingerprint begins so. Raises FileError where these are no digits of one."""
    from gateway.cli.certified import begins_with, digits_of
    from gateway.cli.desk import wrong

    plain = digits_of(digits)
    if not re.fullmatch(r"[0-9a-f]*", plain) or len(plain) < _LEAST_DIGITS:
        raise wrong(
            f"'{digits[:80]}' is no fingerprint. Give its first {_SHOWN} digits, as headgate trust FILE shows it"
        )
    return [row for row in rows if begins_with(row.shown, plain)]


def _one(rows: Sequence[Row], digits: str, what: str) -> Row:
    """The one that is meant. Raises RefusedError where there is none, or more than one."""
    from gateway.errors import RefusedError

    found = _matching(rows, digits)
    if not found:
        there = ", ".join(sorted({row.shown.thumbprint[:_SHOWN] for row in rows}))
        raise RefusedError(f"no certificate {what} begins with {digits}; there are: {there or 'none'}")
    if len({row.shown.thumbprint for row in found}) > 1:
        there = ", ".join(sorted({row.shown.thumbprint for row in found}))
        raise RefusedError(f"{digits} is the beginning of several: {there}. Give more digits")
    if len(found) > 1:
        there = ", ".join(", ".join(row.devices) or str(row.shown.path) for row in found)
        raise RefusedError(
            f"{digits} is there more than once, for {there}. Name the device: headgate trust FILE DEVICE"
        )
    return found[0]


# --- done -----------------------------------------------------------------------------------------------------------


def _approve(rows: Sequence[Row], options: argparse.Namespace) -> int:
    from gateway.errors import RefusedError

    waiting = [row for row in rows if row.shown.state == "pending"]
    if options.approve.lower() != "all":
        trusted = [row for row in rows if row.shown.state == "trusted"]
        if not _matching(waiting, options.approve) and _matching(trusted, options.approve):
            print("it is trusted already", file=sys.stderr)
            return 0
        chosen = [_one(waiting, options.approve, "that waits")]
    elif len({row.devices for row in waiting}) > 1:
        raise RefusedError(
            "certificates of several servers wait. Name the device: headgate trust FILE DEVICE --approve all"
        )
    else:
        chosen = waiting
    if not chosen:
        raise RefusedError("no certificate waits to be approved. To ask the server for its own: --fetch")
    return _do(chosen, options, "Trust", "is trusted from the next connection on")


def _remove(rows: Sequence[Row], options: argparse.Namespace) -> int:
    row = _one(rows, options.remove, "there")
    if row.shown.state == "trusted":
        return _do([row], options, "Trust it no more", "is not trusted from the next connection on, and waits again")
    return _do([row], options, "Forget it", "is forgotten")


def _do(rows: Sequence[Row], options: argparse.Namespace, verb: str, done: str) -> int:
    from gateway.cli.queue_target import confirm, print_json

    for row in rows:
        print("\n".join(_lines(row)), file=sys.stderr)
    if not confirm(options, f"{verb}{' all of these' if len(rows) > 1 else ''}"):
        return 1
    for row in rows:
        if options.approve is not None:
            row.certificates.approve(row.shown)
        else:
            row.certificates.remove(row.shown)
        if not options.json:
            print(f"{row.shown.thumbprint[:_SHOWN]} {done}")
    if options.json:
        print_json({"done": verb.lower(), "servers": [_document(row) for row in rows]})
    return 0


# --- shown ----------------------------------------------------------------------------------------------------------


def _show(rows: Sequence[Row], holders: Sequence[Holder], options: argparse.Namespace) -> None:
    from gateway.cli.certified import by_folder
    from gateway.cli.queue_target import print_json

    faults = [fault for group in by_folder(holders).values() for fault in group[0].certificates.faults()]
    if options.json:
        print_json({"servers": [_document(row) for row in rows], "faults": faults})
        return
    for row in rows:
        print("\n".join(_lines(row)))
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    for holder in holders:
        if holder.certificates.unchecked:
            print(f"device '{holder.device}' makes no use of them: {holder.certificates.unchecked}", file=sys.stderr)
    waiting = [row for row in rows if row.shown.state == "pending"]
    if waiting:
        first = waiting[0].shown.thumbprint[:_SHOWN]
        print("Compare what waits with what the server itself shows. Where it is the same, it may be trusted:")
        print(f"headgate trust {_quoted(options.file)} --approve {first}")
    elif not rows:
        print("no certificates of servers are here, neither trusted nor waiting", file=sys.stderr)


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _lines(row: Row) -> list[str]:
    from gateway.cli.certified import lines_of

    shown = row.shown
    where = ", ".join(shown.urls) or str(shown.path)
    lines = [f"{shown.state:<8} {', '.join(row.devices) or 'no device of the file'}: {where}"]
    if shown.why:
        lines.append(f"  {'waits' if shown.state == 'pending' else 'trusted':<18}{shown.why}, {shown.since}")
    return [*lines, *lines_of(shown)]


def _document(row: Row) -> dict[str, Any]:
    from gateway.cli.certified import document_of

    shown = row.shown
    known = {"state": shown.state, "devices": row.devices, "urls": shown.urls, "since": shown.since, "why": shown.why}
    return {**known, **document_of(shown)}
