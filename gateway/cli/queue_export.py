"""`headgate queue export`: samples as a table, in CSV or JSON Lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import queue_target

if TYPE_CHECKING:
    from gateway.upkeep.export import Table
    from gateway.upkeep.survey import Survey

SUMMARY = "Write what is stored as a table of samples: CSV or JSON Lines."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)
    queue_target.declare_span(parser, "only samples")
    parser.add_argument("--tag", metavar="GLOB", help="only tags of this name; * and ? stand for any letters")
    parser.add_argument("--device", metavar="NAME", help="only this device")
    parser.add_argument("--format", choices=("csv", "jsonl"), help="csv (the default), or jsonl: one object a line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to this file, which appears when it is whole")


def run(options: argparse.Namespace) -> int:
    """Write the table; say on standard error what is not in it. Exit code 1 when records could not be read."""
    from gateway.cli.queue_progress import Progress
    from gateway.upkeep.export import Format, Table, header
    from gateway.upkeep.records import Wanted
    from gateway.upkeep.whole import whole_file

    form: Format = options.format or ("jsonl" if options.json else "csv")
    wanted = Wanted(span=queue_target.span(options), tag=options.tag, device=options.device)
    target = queue_target.find(options)
    surveys = target.surveys(options.record_class)
    table = Table(form, wanted)

    def pieces() -> Iterator[bytes]:
        yield header(form)
        with Progress("export", sum(survey.size for survey in surveys)) as progress:
            for survey in surveys:
                yield from table.pieces(survey, advance=progress.advance)

    if options.out is not None:
        whole_file(options.out, pieces())
    else:
        for piece in pieces():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    _say(table, surveys, is_running=target.is_running)
    return int(bool(table.count.unread))


def _say(table: Table, surveys: list[Survey], *, is_running: bool) -> None:
    count = table.count
    print(f"{count.samples} samples of {count.records} records", file=sys.stderr)
    if count.unread:
        print(f"not in the table: {count.unread} records that cannot be read: {count.obstacle}", file=sys.stderr)
    if count.gaps:
        gaps = f"{count.gap_records} gaps of {count.gaps} records"
        print(f"not in the table: {gaps}, told as lost; see `headgate queue audit`", file=sys.stderr)
    if count.others:
        print(f"not in the table: {count.others} messages, events and audit entries", file=sys.stderr)
    if is_running:
        print("a gateway runs here: what it has in memory only is not in the table", file=sys.stderr)
    if any(survey.set_aside for survey in surveys):
        print("files set aside as damaged were left out; see `headgate queue verify`", file=sys.stderr)
