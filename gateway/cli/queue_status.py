"""`headgate queue status`: how full a spool is, what waits for whom, how long it will last."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from gateway.cli import queue_target

SUMMARY = "Show for each class and uplink what waits, how full the spool is and how long it will last."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the gateway that runs, or read the folder."""
    target = queue_target.find(options)
    answer = queue_target.running(target)
    if answer is None:
        queues = _stopped(target, options.record_class)
        answer = {"running": False, "queues": queues}
    else:
        queues = [q for q in answer["spool"]["queues"] if options.record_class in (None, q["record_class"])]
        answer = {"running": True, "clock": answer["clock"], "queues": queues, "uplinks": answer["uplinks"]}
    if options.json:
        queue_target.print_json(answer)
        return 0
    print(f"{target.folder}: " + (f"running, clock {answer['clock']}" if answer["running"] else "no gateway runs here"))
    for queue in queues:
        print("\n".join(_lines(queue)))
    for uplink in answer.get("uplinks", ()):
        print("\n".join(_uplink(uplink)))
    return 0


def _stopped(target: queue_target.Target, record_class: Any) -> list[dict[str, Any]]:
    """What the folder says by itself."""
    from dataclasses import asdict

    from gateway.upkeep.standing import standing

    limits = target.limits
    found = []
    for survey in target.surveys(record_class):
        now_ms = time.time_ns() // 1_000_000
        most = limits[survey.part.record_class].max_bytes if limits else None
        found.append(asdict(standing(survey, now_ms, max_bytes=most)))
    return found


def _lines(queue: Mapping[str, Any]) -> list[str]:
    """One class, and what waits for each uplink. A running gateway says more than a folder."""
    from gateway.quantities import format_size
    from gateway.upkeep.moments import iso

    of = f" of {format_size(queue['max_bytes'])}" if queue["max_bytes"] else ""
    fill = f" ({queue['used_bytes'] / queue['max_bytes']:.0%})" if queue["max_bytes"] else ""
    room = f"{format_size(queue['used_bytes'])}{of} used{fill}, {format_size(queue['allocated_bytes'])} taken"
    if "state" in queue:
        lines = [f"{queue['record_class']}: {queue['state']}, epoch {queue['epoch']}, {room}"]
        lines.append(f"  records up to {queue['head']}, durable up to {queue['durable']}")
    else:
        lines = [f"{queue['record_class']}: epoch {queue['epoch']}, {room}"]
        newest = f", the newest of {iso(queue['last_ms'])} (clock {queue['clock']})" if queue["records"] else ""
        lines.append(f"  {queue['records']} records in {queue['frames']} frames{newest}")
    if queue.get("hours_left") is not None:
        lines.append(f"  room for {_hours(queue['hours_left'])} more at the present rate")
    if "bytes_today" in queue:
        today = f"  {format_size(queue['bytes_today'])} in {queue['flushes_today']:,} flushes written today"
        lines.append(f"{today}, {format_size(queue['bytes_total'])} in {queue['flushes_total']:,} in all")
    if queue.get("set_aside"):
        lines.append(f"  {queue['set_aside']} files set aside as damaged; see `headgate queue verify`")
    lines += [_cursor(cursor) for cursor in queue["cursors"]]
    return lines


def _cursor(cursor: Mapping[str, Any]) -> str:
    from gateway.quantities import format_size
    from gateway.upkeep.moments import lasted

    what = "" if cursor["holds"] else ", holds nothing"
    what += ", not in the file any more" if cursor.get("retired") else ""
    size = f" ({format_size(cursor['lag_bytes'])} on the disk)" if "lag_bytes" in cursor else ""
    since = f", the oldest for {lasted(cursor['lag_s'])}" if cursor["lag_s"] else ""
    return f"  uplink {cursor['name']}{what}: {cursor['lag_records']:,} records wait{size}{since}"


def _uplink(uplink: Mapping[str, Any]) -> list[str]:
    where = "connected" if uplink["connected"] else f"not connected: {uplink['last_error']}"
    lines = [f"uplink {uplink['name']}: {where}"]
    if uplink["backlog_records"] and uplink["done_at"] is not None:
        from gateway.upkeep.moments import iso

        rate = f"{uplink['replay_rate']:,.0f} values/s"
        lines.append(f"  backlog of {uplink['backlog_records']:,} records, {rate}, done at {iso(uplink['done_at'])}")
    return lines


def _hours(hours: float) -> str:
    if hours > 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h"
