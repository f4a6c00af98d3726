"""`headgate queue verify`: every checksum of a spool, and what is missing."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli import queue_target

if TYPE_CHECKING:
    from gateway.upkeep.verify import Damage, Verified

SUMMARY = "Check every frame's checksums; list what is damaged, with records and times. Exit code 1 when something is."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)


def run(options: argparse.Namespace) -> int:
    """Read all there is and say what is wrong."""
    from gateway.cli.queue_progress import Progress
    from gateway.upkeep.verify import Verified, verify

    surveys = queue_target.find(options).surveys(options.record_class)
    tally = Verified()
    with Progress("verify", sum(survey.size for survey in surveys)) as progress:
        found = [d for survey in surveys for d in verify(survey, tally, advance=progress.advance)]
    code = int(any(damage.is_serious for damage in found))
    if options.json:
        queue_target.print_json({"ok": not code, **asdict(tally), "damage": [asdict(damage) for damage in found]})
    else:
        _print(tally, found)
    return code


def _print(tally: Verified, found: list[Damage]) -> None:
    from gateway.quantities import format_size

    for damage in found:
        print(_heading(damage))
        for site in damage.sites:
            print(f"  {site.file}, byte {site.offset}, {format_size(site.size)}: {site.what}")
        if not damage.sites:
            print("  these records are in no frame: a file, or the end of one, is missing")
    looked = f"{tally.frames} frames with {tally.records} records are whole in {tally.files} segments"
    print(f"{looked} ({format_size(tally.bytes)})" + (f"; {tally.doubled} stand there twice" if tally.doubled else ""))
    if any(damage.kind in ("lost", "open") for damage in found):
        print("the gateway runs all the same, and tells its uplinks of what is lost; nothing must be done")
    if any(damage.kind == "set aside" and damage.count for damage in found):
        print("`headgate queue repair` brings back what can be read in files that were set aside")


def _heading(damage: Damage) -> str:
    kinds = {
        "lost": "lost",
        "torn": "torn by a power cut, nobody had been promised them",
        "open": "torn by a power cut, or damaged since",
        "harmless": "damaged, and stored once more elsewhere",
        "set aside": "set aside",
    }
    return f"{damage.record_class}: {told(damage)}: {kinds[damage.kind]}"


def told(damage: Damage) -> str:
    """Which records, and of when."""
    from gateway.upkeep.moments import iso

    if damage.last_seq < max(1, damage.first_seq):
        return "records nobody can name" if not damage.first_seq else f"records from {damage.first_seq} on"
    first = damage.first_seq or "?"
    many = f"records {first} to {damage.last_seq}" + (f" ({damage.count} at most)" if damage.count else "")
    if not damage.last_time:
        return many
    return f"{many} of {iso(damage.first_time) or '?'} to {iso(damage.last_time)}"
