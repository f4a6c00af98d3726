"""`headgate queue forget`: let go of an uplink that the file has no more, and of all that waits for it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from gateway.cli import queue_target
from gateway.cli.queue_purge import line

SUMMARY = "Forget an uplink that was taken out of the file: what only it held is held no more. It asks first."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser, with_class=False)
    parser.add_argument("uplink", metavar="UPLINK", help="the uplink's name")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="forget it though the file has it: it begins anew")


def run(options: argparse.Namespace) -> int:
    """Say what waits for it, ask, and forget it: by the gateway that runs, or in the folder."""
    from gateway.errors import RefusedError
    from gateway.upkeep.giving_up import planned

    target = queue_target.find(options)
    surveys = target.surveys(None)
    marks = {mark.name for survey in surveys if (state := survey.state()) is not None for mark in state.marks}
    running = queue_target.running(target)
    if running is not None:
        marks |= {cursor["name"] for cursor in running["spool"]["cursors"]}
    if options.uplink not in marks:
        there = f"there are: {', '.join(sorted(marks))}" if marks else "there are none"
        raise RefusedError(f"the spool knows no uplink '{options.uplink}'; {there}")
    in_file = target.config is not None and options.uplink in target.config.uplinks
    if in_file and not options.force:
        raise RefusedError(
            f"{options.file} has the uplink '{options.uplink}'. Take it out of the file first, or give --force:"
            " then what waits for it is given up, and it begins anew with the next record"
        )
    for share in [share for survey in surveys for share in planned(survey, None, options.uplink)]:
        print(f"will go: {line(asdict(share))}", file=sys.stderr)
    if not queue_target.confirm(options, f"Forget uplink '{options.uplink}' and what waits for it"):
        return 1
    return _told(_forget(target, options, running), options)


def _forget(
    target: queue_target.Target, options: argparse.Namespace, running: dict[str, Any] | None
) -> list[dict[str, Any]]:
    if running is None:
        from gateway.cli.queue_offline import forget

        return [asdict(share) for share in forget(target, options.uplink)]
    from gateway.control import ask

    if not any(uplink["name"] == options.uplink for uplink in running["uplinks"]) or not options.force:
        answer = ask(target.folder, {"do": "queue forget", "uplink": options.uplink})
    else:
        # It runs, so its cursor stays: what it has is given up, and it goes on with what is new.
        classes = [queue["record_class"] for queue in running["spool"]["queues"]]
        share = {"uplink": options.uplink, "last_seq": None, "first_time": 0, "last_time": 0}
        shares = [{**share, "record_class": name} for name in classes]
        answer = ask(target.folder, {"do": "queue purge", "shares": shares})
    shares_gone: list[dict[str, Any]] = answer["shares"]
    return shares_gone


def _told(gone: list[dict[str, Any]], options: argparse.Namespace) -> int:
    if options.json:
        queue_target.print_json({"forgotten": options.uplink, "given_up": gone})
        return 0
    for share in gone:
        if share["count"]:
            print(f"given up: {line(share)}")
    print(f"uplink '{options.uplink}' is forgotten")
    return 0
