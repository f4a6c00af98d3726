"""`headgate status FILE`: how the gateway that runs this file fares."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import orjson

from gateway.cli.browse_tree import plain
from gateway.config import load
from gateway.control import ask
from gateway.quantities import format_size
from gateway.upkeep.moments import iso, lasted

SUMMARY = "Show how the running gateway fares: devices, uplinks, broker, spool."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, help="the gateway file that is running")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Ask over the control socket and print."""
    answer = ask(load(options.file).spool.path, {"do": "status"})
    if options.json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(_lines(answer)))
    return 0


def _lines(status: dict[str, Any]) -> list[str]:
    spool = status["spool"]
    lines = [f"{status['gateway']}: headgate {status['version']}, up {status['up_s']:.0f} s"]
    lines += [_device(device) for device in status["devices"]]
    lines += [_line(line) for line in status["lines"]]
    cursors = {cursor["name"]: cursor for cursor in spool["cursors"]}
    lines += [line for uplink in status["uplinks"] for line in _uplink(uplink, cursors.pop(uplink["name"]))]
    lines += [
        f"  uplink {cursor['name']}: not in the file any more; {cursor['lag_records']:,} records wait for it"
        for cursor in cursors.values()
        if cursor["retired"] and cursor["lag_records"]
    ]
    if status["broker"] is not None:
        lines.append(_broker(status["broker"]))
    lines += _spool(spool, status["clock"])
    lines += [
        f"  task {t['name']}: {t['state']}, crashed {t['crashes']} times: {t['last_error']}"
        for t in status["tasks"]
        if t["crashes"]
    ]
    return lines


def _device(device: dict[str, Any]) -> str:
    """Since when it is sick and when it is asked again, where it is; and what of it rests."""
    cause = f" ({device['cause']})" if device["cause"] else ""
    since = f" since {iso(device['since'])}" if device["state"] == "offline" else ""
    turn = ""
    if device["ask_again_s"] is not None:
        turn = f", {device['failures']} failures in a row, asked again in {lasted(device['ask_again_s'])}"
    resting = f", {device['resting']} resting" if device["resting"] else ""
    tags = f"{device['tags']} tags, {device['bad']} bad{resting}"
    why = f"\n    {plain(device['text'])}" if device.get("text") else ""
    return f"  device {device['name']}: {device['state']}{cause}{since}{turn}, {tags}{why}"


def _line(line: dict[str, Any]) -> str:
    """How full its time is; what comes too late then is counted."""
    where = "connected" if line["connected"] else "not connected"
    sick = f", {line['sick']:.0%} for nothing" if line["sick"] else ""
    missed = f", {line['missed']:,} polls missed" if line["missed"] else ""
    return f"  line {line['name']}: {where}, busy {line['busy']:.0%} of the last minute{sick}{missed}"


def _uplink(uplink: dict[str, Any], cursor: dict[str, Any]) -> list[str]:
    where = f"connected to {uplink['server']}" if uplink["connected"] else f"not connected: {uplink['last_error']}"
    since = f" (the oldest for {lasted(cursor['lag_s'])})" if cursor["lag_records"] else ""
    done = f"{uplink['acknowledged']:,} records acknowledged"
    lines = [f"  uplink {uplink['name']}: {where}; {done}, {cursor['lag_records']:,} waiting{since}"]
    if uplink["connected"] and uplink["backlog_records"]:
        end = "" if uplink["done_at"] is None else f", done at {iso(uplink['done_at'])}"
        lines.append(
            f"    backlog of {uplink['backlog_records']:,} records, {uplink['replay_rate']:,.0f} values/s{end}"
        )
    return lines


def _spool(spool: dict[str, Any], clock: str) -> list[str]:
    """The whole, and where there are several classes each of them."""
    written = f"{format_size(spool['bytes_today'])} in {spool['flushes_today']:,} flushes written today"
    lines = [f"  spool: {_room(spool)}; {written}; clock {clock}"]
    if len(spool["queues"]) > 1:
        lines += [f"    {queue['record_class']}: {_room(queue)}" for queue in spool["queues"]]
    lost = ((spool[cause], cause) for cause in ("evicted", "refused", "thinned", "dropped"))
    if told := ", ".join(f"{count:,} {cause}" for count, cause in lost if count):
        lines.append(f"    records since the start: {told}; `headgate queue audit` has their ranges")
    return lines


def _room(spool: dict[str, Any]) -> str:
    left = spool["hours_left"]
    until = "" if left is None else f", room for {left / 24:,.1f} days" if left > 48 else f", room for {left:.1f} h"
    return (
        f"{spool['state']}, {format_size(spool['used_bytes'])} of {format_size(spool['max_bytes'])}"
        f" used ({spool['fill']:.0%}){until}"
    )


def _broker(status: dict[str, Any]) -> str:
    figures = status["figures"]
    where = f"on {', '.join(status['listen']) or 'nothing'}"
    if status["missing"]:
        where += f", cannot listen on {', '.join(status['missing'])}"
    failing = "; its store fails: see the log" if figures["store_failing"] else ""
    return (
        f"  broker: {where}; {figures['clients_connected']:.0f} clients, {figures['sessions']:.0f} sessions,"
        f" {figures['retained_messages']:.0f} retained; {figures['messages_received_total']:.0f} messages in,"
        f" {figures['messages_sent_total']:.0f} out, {figures['messages_dropped_total']:.0f} dropped{failing}"
    )
