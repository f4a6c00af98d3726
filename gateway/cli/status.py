"""`headgate status FILE`: how the gateway that runs this file fares."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import orjson

from gateway.config import load
from gateway.control import ask

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
    for device in status["devices"]:
        cause = f" ({device['cause']})" if device["cause"] else ""
        lines.append(f"  device {device['name']}: {device['state']}{cause}, {device['tags']} tags, {device['bad']} bad")
    waiting = {cursor["name"]: (cursor["lag_records"], cursor["lag_s"]) for cursor in spool["cursors"]}
    for uplink in status["uplinks"]:
        where = f"connected to {uplink['server']}" if uplink["connected"] else f"not connected: {uplink['last_error']}"
        records, age_s = waiting[uplink["name"]]
        lines.append(
            f"  uplink {uplink['name']}: {where}; {uplink['acknowledged']} records acknowledged,"
            f" {records} waiting (the oldest for {age_s:.0f} s)"
        )
    if status["broker"] is not None:
        lines.append(_broker(status["broker"]))
    lines.append(
        f"  spool: {spool['state']}, {spool['used_bytes']} of {spool['max_bytes']} bytes used,"
        f" {spool['bytes_written']} bytes in {spool['flushes']} flushes written since the start"
    )
    lines += [
        f"  task {t['name']}: {t['state']}, crashed {t['crashes']} times: {t['last_error']}"
        for t in status["tasks"]
        if t["crashes"]
    ]
    return lines


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
