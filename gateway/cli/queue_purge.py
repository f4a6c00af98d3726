"""`headgate queue purge`: give up records that no uplink has acknowledged yet."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from gateway.cli import queue_target

SUMMARY = "Give up what waits for uplinks: older than a moment, of one uplink, or all. It says what will go, and asks."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)
    parser.add_argument("--before", metavar="TIME", help="what was taken before then: 2026-11-22T06:00Z, ms, or -2h")
    parser.add_argument("--uplink", metavar="NAME", help="what waits for this uplink; with --before, its older part")
    parser.add_argument("--all", action="store_true", help="everything that waits for any uplink")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(complain=parser.error)


def run(options: argparse.Namespace) -> int:
    """Say what will go, ask, and let it go: by the gateway that runs, or in the folder."""
    if not (options.before or options.uplink or options.all) or (options.all and (options.before or options.uplink)):
        options.complain("say what is to go: --before TIME, --uplink NAME, both, or --all")
    from gateway.upkeep.giving_up import planned

    before_ms = queue_target.moment(options.before)
    target = queue_target.find(options)
    surveys = target.surveys(options.record_class)
    shares = [share for survey in surveys for share in planned(survey, before_ms, options.uplink)]
    running = queue_target.running(target)
    wanted = [asdict(share) for share in shares]
    if before_ms is None and running is not None:
        wanted = _with_memory(wanted, running, options)
    if not wanted:
        print("nothing waits that would go", file=sys.stderr)
        return _told([], options)
    for share in wanted:
        print(f"will go: {line(share)}", file=sys.stderr)
    if not queue_target.confirm(options, "Give these records up, for good"):
        return 1
    if running is not None:
        from gateway.control import ask

        return _told(ask(target.folder, {"do": "queue purge", "shares": wanted})["shares"], options)
    from gateway.cli.queue_offline import purge

    return _told([asdict(share) for share in purge(target, shares)], options)


def _with_memory(
    wanted: list[dict[str, Any]], status: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Everything of an uplink: what it has in memory too, which only the gateway knows."""
    times = {(w["record_class"], w["uplink"]): (w["first_time"], w["last_time"]) for w in wanted}
    found = []
    for queue in status["spool"]["queues"]:
        for cursor in queue["cursors"]:
            key = (queue["record_class"], cursor["name"])
            is_wanted = options.record_class in (None, key[0]) and options.uplink in (None, key[1])
            if is_wanted and cursor["lag_records"]:
                first_time, last_time = times.get(key, (0, 0))
                found.append(
                    {
                        "record_class": key[0],
                        "uplink": key[1],
                        "first_seq": cursor["committed"] + 1,
                        "last_seq": None,
                        "count": cursor["lag_records"],
                        "first_time": first_time,
                        "last_time": last_time,
                    }
                )
    return found


def _told(gone: list[dict[str, Any]], options: argparse.Namespace) -> int:
    if options.json:
        queue_target.print_json({"given_up": gone})
    for share in [] if options.json else gone:
        print(f"given up: {line(share)}")
    return 0


def line(share: dict[str, Any]) -> str:
    """What goes, in words."""
    from gateway.upkeep.moments import iso

    last = "the newest" if share["last_seq"] is None else share["last_seq"]
    times = f", of {iso(share['first_time'])} to {iso(share['last_time'])}" if share["first_time"] else ""
    count = f"{share['count']:,} records ({share['first_seq']} to {last})"
    return f"class {share['record_class']}, uplink {share['uplink']}: {count}{times}"
