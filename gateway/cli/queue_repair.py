"""`headgate queue repair`: write damaged segments anew without what is damaged."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from gateway.cli import queue_target

SUMMARY = "Copy what is whole of damaged segments to new ones and keep the old as .bad. No gateway needs it to start."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write a mended copy there instead, and only read the original"
    )


def run(options: argparse.Namespace) -> int:
    """Mend each class; say what was done to which file."""
    from gateway.cli.queue_progress import Progress
    from gateway.errors import RefusedError
    from gateway.upkeep.repair import Mended, repair, repair_to
    from gateway.upkeep.survey import Survey

    target = queue_target.find(options)
    parts = target.parts(options.record_class)
    if target.is_running:
        raise RefusedError(f"{target.folder}: a gateway runs here and mends what it must by itself. Stop it first")
    parts.sort(key=lambda part: part.record_class != "data")  # the others' copies go below that of data
    mended: list[Mended] = []
    with Progress("repair", sum(Survey(part).size for part in parts)) as progress:
        for part in parts:
            if options.out is None:
                mended += repair(part, advance=progress.advance)
            else:
                below = options.out if part.record_class == "data" else options.out / part.record_class
                mended += repair_to(part, below, advance=progress.advance)
    if options.json:
        queue_target.print_json({"files": [asdict(m) for m in mended]})
        return 0
    for m in mended:
        what = f"{m.frames} frames kept, {m.dropped} damaged places left out"
        what = f"{m.frames} frames with {m.rescued} records brought back" if m.rescued else what
        print(f"{m.record_class} {m.file}: {what}")
        for first, last, count in m.gaps:
            print(f"  a gap stands for records {first} to {last} ({count} at most)")
    if not mended:
        print("nothing is damaged" + ("; the copy is like the original" if options.out is not None else ""))
    return 0
