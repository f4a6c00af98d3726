"""`headgate queue inspect`: the records of a spool one by one, or the frames they lie in."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway.cli import queue_target

if TYPE_CHECKING:
    from gateway.model import Batch
    from gateway.spool.record import Record
    from gateway.upkeep.records import Wanted
    from gateway.upkeep.survey import Item, Survey

SUMMARY = "Show what is stored, record by record, or with --frames as it lies on the disk."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)
    queue_target.declare_span(parser, "only records")
    parser.add_argument("--seq", metavar="A..B", help="only these numbers: 4711, 100..200, 100..")
    parser.add_argument("--tag", metavar="GLOB", help="only tags of this name; * and ? stand for any letters")
    parser.add_argument("--frames", action="store_true", help="show frames instead of records, damaged ones too")


def run(options: argparse.Namespace) -> int:
    """Print as it is read, however much it is."""
    from gateway.upkeep.records import Wanted

    first, last = queue_target.seqs(options.seq)
    wanted = Wanted(span=queue_target.span(options), first_seq=first, last_seq=last, tag=options.tag)
    surveys = queue_target.find(options).surveys(options.record_class)
    of = _frames if options.frames else _records
    rows = (row for survey in surveys for row in of(survey, wanted))
    if options.json:
        queue_target.print_list(rows)
    else:
        for row in rows:
            print(_frame_line(row) if options.frames else _record_line(row))
    return 0


def _records(survey: Survey, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Each record as a document."""
    from gateway.upkeep.records import frames

    for _, records in frames(survey, wanted):
        for record in records:
            row = _record(record, wanted)
            if row is not None:
                yield {"class": survey.part.record_class, **row}


def _record(record: Record, wanted: Wanted) -> dict[str, Any] | None:
    """One record; None where nothing of it is wanted."""
    from dataclasses import asdict

    from gateway.upkeep.moments import iso

    about: dict[str, Any] = {"seq": record.seq, "epoch": record.epoch, "ts": iso(record.time), "kind": record.kind}
    gap = record.gap
    if gap is not None:
        return {**about, **asdict(gap)} if wanted.span.meets(gap.first_time or gap.last_time, gap.last_time) else None
    if not wanted.span.holds(record.time):
        return None
    if record.batch is not None:
        values = _values(record.batch, wanted)
        mark = {"history": True} if record.batch.is_history else {}
        return {**about, "device": record.batch.group.device, **mark, "values": values} if values else None
    return {**about, **asdict(record.other)} if record.other is not None and wanted.tag is None else None


def _values(batch: Batch, wanted: Wanted) -> list[dict[str, Any]]:
    from gateway.upkeep.export import samples

    positions = wanted.positions(batch.group)
    chosen = None if positions is None else set(positions)
    return [
        {"tag": name, "value": value, "unit": unit, "quality": quality, "time": time}
        | ({"server_time": served} if served else {})
        for at, time, name, value, unit, quality, served in samples(batch)
        if chosen is None or at in chosen
    ]


def _record_line(row: dict[str, Any]) -> str:
    head = f"{row['class']} {row['seq']} {row['epoch']} {row['ts']}"
    if row["kind"] == "gap":
        return f"{head} gap: records {row['first_seq']} to {row['last_seq']}, {row['count']} lost ({row['cause']})"
    if row["kind"] != "batch":
        rest = {k: v for k, v in row.items() if k not in ("class", "seq", "epoch", "ts", "kind", "time")}
        return f"{head} {row['kind']}: {rest}"
    mark = " history:" if row.get("history") else ":"
    return f"{head} {row['device']}{mark} " + ", ".join(map(_value_text, row["values"]))


def _value_text(sample: dict[str, Any]) -> str:
    value, unit = sample["value"], sample["unit"]
    text = value.hex() if isinstance(value, bytes) else str(value)
    quality = "" if sample["quality"] == "good" else f" [{sample['quality']}]"
    return f"{sample['tag']}={text}{' ' + unit if unit else ''}{quality}"


def _frames(survey: Survey, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Each frame of each file, whole or not, in the order in which they lie."""
    for file in sorted((*survey.files, *survey.set_aside), key=lambda f: f.number):
        for item in survey.walk_file(file):
            row = _frame(item, wanted)
            if row is not None:
                yield {"class": survey.part.record_class, "file": file.name, **row}


def _frame(item: Item, wanted: Wanted) -> dict[str, Any] | None:
    from gateway.journal import frame
    from gateway.upkeep.moments import iso
    from gateway.upkeep.records import CLOCKS, CODECS
    from gateway.upkeep.survey import Scar, Seen

    if isinstance(item, Scar):
        return {"offset": item.offset, "size": item.size, "state": "damaged", "what": item.what}
    if not isinstance(item, Seen) or not wanted.may_hold(item.head):
        return None
    head = item.head
    return {
        "offset": head.offset,
        "size": head.extent,
        "state": "whole" if item.is_whole else "damaged",
        "version": head.version,
        "codec": CODECS.get(head.codec, str(head.codec)),
        "epoch": head.epoch,
        "epoch_start": bool(head.flags & frame.EPOCH_START),
        "first_seq": head.first_seq,
        "last_seq": head.last_seq,
        "covers_from": head.covers_from,
        "count": head.count,
        "first_ts": iso(head.min_time),
        "last_ts": iso(head.max_time),
        "clock": CLOCKS[head.clock] if head.clock < len(CLOCKS) else head.clock,
        "boot": head.boot_id.hex(),
        "written_ts": iso(head.wall),
        "ordinal": head.ordinal,
        "generation": head.generation,
        "definitions": 0 if item.body is None else len(item.body.entries),
        "payload_bytes": 0 if item.body is None else len(item.body.payload),
    }


def _frame_line(row: dict[str, Any]) -> str:
    place = f"{row['class']} {row['file']} {row['offset']:>8} {row['size']:>7}"
    if "epoch" not in row:
        return f"{place} DAMAGED: {row['what']}"
    format_ = f"v{row['version']} {row['codec']}"
    damaged = " DAMAGED" if row["state"] == "damaged" else ""
    start = " start" if row["epoch_start"] else ""
    return (
        f"{place} {format_} {row['epoch']}{start} records {row['first_seq']}..{row['last_seq']} ({row['count']}),"
        f" covers from {row['covers_from']}, {row['first_ts']} .. {row['last_ts']}, clock {row['clock']},"
        f" boot {row['boot'][:8]}{damaged}"
    )
