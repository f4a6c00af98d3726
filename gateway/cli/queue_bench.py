"""`headgate queue bench`: what the card below a spool can do, and whether it can be believed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli import queue_target

if TYPE_CHECKING:
    from gateway.upkeep.card import Medium, Speed

SUMMARY = "Measure the card below a spool: flushes/s, their times, MB/s; advice for commit_interval."

_SHORTEST_S, _LONGEST_S = 1.0, 3600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser, with_class=False)
    parser.add_argument("--seconds", type=_seconds, default=10.0, metavar="N", help="measure so long (default: 10)")


def run(options: argparse.Namespace) -> int:
    """Measure in the folder itself. Exit code 1 when the medium cannot have done what it says."""
    from gateway.cli.queue_progress import Progress
    from gateway.upkeep.card import advice, measure, medium, suspicion

    folder = queue_target.find(options).ground
    with Progress("bench", round(options.seconds * 1000), unit="ms") as progress:
        speed = measure(folder, options.seconds, advance=progress.advance)
    found = medium(folder)
    doubt = suspicion(found, speed)
    if options.json:
        document = {**asdict(speed), **asdict(found), "suspicion": doubt, "commit_interval_s": advice(speed)}
        queue_target.print_json(document)
    else:
        _print(found, speed)
        print(f"commit_interval: {advice(speed):g}s is long enough for this medium" + _load(speed))
        if doubt:
            print(f"NOT TO BE BELIEVED: {doubt}")
    return int(doubt is not None)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from {_SHORTEST_S:g} to {_LONGEST_S:g}")
    return seconds


def _print(found: Medium, speed: Speed) -> None:
    from gateway.quantities import format_size

    print(f"medium: {found.device or 'not known'}, {found.file_system or 'file system not known'}")
    print(f"flushes of 4 KiB: {speed.flushes_per_s:,.0f}/s ({speed.flushes} measured)")
    p50, p99, longest = (f"{s * 1000:.2f} ms" for s in (speed.p50_s, speed.p99_s, speed.longest_s))
    print(f"a flush takes {p50}, 99 of 100 at most {p99}, the longest {longest}")
    print(f"large pieces: {format_size(round(speed.bytes_per_s))}/s")


def _load(speed: Speed) -> str:
    """What the advice means."""
    from gateway.upkeep.card import advice

    share = speed.p99_s / advice(speed)
    return f": even a slow flush takes {share:.1%} of it. A longer one spares the card"
